// Windows over the page, and menus.

import { button, fill, h, icon } from "./dom.js";

/** A dialog with a heading. Resolves when it is closed, with what `close(value)` was given, else null. */
export function openDialog(title, build, kind = "") {
  return new Promise((resolve) => {
    let result = null;
    const dialog = h("dialog", { class: `dialog ${kind}`, "aria-labelledby": "dialog-title" });
    const close = (value = null) => {
      result = value;
      dialog.close();
    };
    fill(
      dialog,
      h("header", { class: "dialog-top" }, h("h2", { id: "dialog-title" }, title), button({ label: "Close", iconName: "close", kind: "icon-only", on: () => close() })),
      ...build(close),
    );
    dialog.addEventListener("click", (event) => { if (event.target === dialog) close(); });
    dialog.addEventListener("close", () => { dialog.remove(); resolve(result); });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("[data-first]")?.focus();
  });
}

/** Ask for a yes. */
export function confirm(title, text, yes) {
  return openDialog(title, (close) => [
    h("p", {}, text),
    h(
      "div", { class: "dialog-foot" },
      button({ text: "Keep", on: () => close(false) }),
      button({ text: yes, kind: "danger", on: () => close(true), "data-first": true }),
    ),
  ], "narrow");
}

/** A menu below a button: items are {text, iconName, on, isDangerous} or null. */
export function menu(label, iconName, items, text = null) {
  const summary = h("summary", { class: text ? "button" : "button icon-only", "aria-label": label, title: text ? null : label }, icon(iconName), text ? h("span", {}, text) : null);
  const details = h("details", { class: "menu" }, summary);
  const leave = () => { details.open = false; };
  const entries = items.filter(Boolean).map((item) =>
    button({ text: item.text, iconName: item.iconName, kind: item.isDangerous ? "entry danger-text" : "entry", on: () => { leave(); item.on(); } }));
  details.append(h("div", { class: "menu-list" }, entries));
  details.addEventListener("keydown", (event) => {
    const at = entries.indexOf(document.activeElement);
    if (event.key === "Escape" && details.open) {
      event.stopPropagation();
      leave();
      summary.focus();
    } else if (["ArrowDown", "ArrowUp"].includes(event.key)) {
      event.preventDefault();
      event.stopPropagation();
      details.open = true;
      entries[(at + (event.key === "ArrowDown" ? 1 : -1) + entries.length) % entries.length].focus();
    }
  });
  details.addEventListener("focusout", (event) => { if (!details.contains(event.relatedTarget)) leave(); });
  return details;
}

const KEYS = [
  ["Space or K", "play, pause"], ["J, L", "10 seconds back, ahead"], ["← →", "5 seconds back, ahead"],
  ["P, N", "moment before, next moment"], ["/", "write a question"], ["Enter", "ask"], ["Shift + Enter", "begin another question"],
  ["Esc", "leave the field; then: stop the answers"], ["C", "captions"], ["M", "sound off, on"], ["F", "full screen"], ["?", "this list"],
];

export function showKeys() {
  return openDialog("Keys", () => [
    h("dl", { class: "keys" }, KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, keys.split(/(, | or | \+ )/).map((part, index) => (index % 2 ? part : h("kbd", {}, part)))), h("dd", {}, what)))),
    h("p", { class: "quiet" }, "On the timeline, arrows go from moment to moment."),
  ]);
}

/** Ask for the server's key: {key, isKept} or null. */
export function askForKey(wasWrong) {
  return openDialog("This server needs a key", (close) => {
    const field = h("input", { type: "password", id: "key", autocomplete: "off", "data-first": true, required: true });
    const keep = h("input", { type: "checkbox" });
    return [
      h(
        "form", { class: "stack", on: { submit: (event) => { event.preventDefault(); close({ key: field.value.trim(), isKept: keep.checked }); } } },
        wasWrong ? h("p", { class: "problem" }, icon("warning"), h("span", {}, "The server did not accept this key.")) : null,
        h("label", { for: "key" }, "Key"), field,
        h("label", { class: "check" }, keep, "Keep it on this device"),
        h("p", { class: "quiet" }, "Whoever runs the server has the key. Without the tick it is forgotten when this tab closes."),
        h("div", { class: "dialog-foot" }, h("button", { type: "submit", class: "button primary" }, "Continue")),
      ),
    ];
  }, "narrow");
}

/** "1:02:05", "2:05" or "125" -> seconds; "" gives null, anything else NaN. */
export function secondsOf(text) {
  if (!text.trim()) return null;
  const parts = text.trim().split(":");
  if (parts.length > 3 || !parts.every((part) => /^\d+(\.\d+)?$/.test(part))) return NaN;
  return parts.reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** Ask for a part and a rate: {start_seconds, end_seconds, fps} without what was left out, or null. */
export function askForPart() {
  return openDialog("Watch a part, or at another rate", (close) => {
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const [from, to] = ["0:00", "the end"].map((placeholder, index) => h("input", { type: "text", id: index ? "to" : "from", placeholder, inputmode: "numeric", "data-first": !index }));
    const fps = h("input", { type: "number", id: "fps", min: 0.05, max: 30, step: "any", value: 1 });
    const submit = (event) => {
      event.preventDefault();
      const [start, end, rate] = [secondsOf(from.value), secondsOf(to.value), Number(fps.value)];
      let fault = "";
      if (Number.isNaN(start) || Number.isNaN(end)) fault = "Write times like 1:02:05, or in seconds.";
      else if (end !== null && end <= (start ?? 0)) fault = "The part must end after it begins.";
      else if (!(rate > 0)) fault = "The rate must be more than 0.";
      fill(problem, icon("warning"), h("span", {}, fault));
      problem.hidden = !fault;
      if (!fault) close({ ...(start ? { start_seconds: start } : {}), ...(end === null ? {} : { end_seconds: end }), fps: rate });
    };
    return [
      h(
        "form", { class: "stack", on: { submit } },
        h("p", { class: "quiet" }, "This makes another memory of the same video. The one that you have stays."),
        h("div", { class: "fields" }, h("label", { for: "from" }, "From", from), h("label", { for: "to" }, "To", to), h("label", { for: "fps" }, "Frames a second", fps)),
        problem,
        h("div", { class: "dialog-foot" }, h("button", { type: "submit", class: "button primary" }, "Watch")),
      ),
    ];
  }, "narrow");
}
