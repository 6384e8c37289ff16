// Builds elements. Text becomes text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with properties and children.
 *
 * `on` holds listeners by event, `data` data attributes, `style` CSS properties; `class` and all other names are
 * attributes: true sets an empty one, false, null and undefined set none. Children are nodes or text; null is skipped.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "data") {
      Object.assign(element.dataset, value);
    } else if (name === "style") {
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Text for screen readers only. */
export const unseen = (text) => h("span", { class: "unseen" }, text);

/** Put these children in place of all that an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

// Drawn on 20 x 20, lines of 1.6; those in FILLED are areas.
const PATHS = {
  play: "M6.5 4.2v11.6a.6.6 0 0 0 .92.5l9-5.8a.6.6 0 0 0 0-1l-9-5.8a.6.6 0 0 0-.92.5z",
  pause: "M5.5 4h3v12h-3zM11.5 4h3v12h-3z",
  previous: "M14.5 5 9 10l5.5 5M5.5 5v10",
  next: "M5.5 5l5.5 5-5.5 5M14.5 5v10",
  sound: "M3 8v4h3l4 3.5v-11L6 8zM13 7.2a4 4 0 0 1 0 5.6M15.4 5a7 7 0 0 1 0 10",
  muted: "M3 8v4h3l4 3.5v-11L6 8zM13.5 8l4 4M17.5 8l-4 4",
  full: "M4 8V4h4M12 4h4v4M16 12v4h-4M8 16H4v-4",
  captions: "M3 5h14v10H3zM6 9.2h4M6 12h6M12 9.2h2",
  plus: "M10 4v12M4 10h12",
  close: "M5 5l10 10M15 5 5 15",
  check: "M4 10.5 8.2 15 16 6",
  send: "M10 16V4.5M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  folder: "M3 6.5A1.5 1.5 0 0 1 4.5 5H8l2 2h5.5A1.5 1.5 0 0 1 17 8.5v6A1.5 1.5 0 0 1 15.5 16h-11A1.5 1.5 0 0 1 3 14.5z",
  file: "M6 3h5.5L15 6.5V17H6zM11 3v4h4",
  link: "M8.5 11.5a3 3 0 0 0 4.3.1l2.6-2.6a3 3 0 1 0-4.3-4.3L10 5.8M11.5 8.5a3 3 0 0 0-4.3-.1L4.6 11a3 3 0 1 0 4.3 4.3L10 14.2",
  download: "M10 3.5v9M6 9l4 4 4-4M4 16.5h12",
  trash: "M4 6h12M8 6V4h4v2M5.5 6l.8 10.5h7.4L14.5 6",
  more: "M3.9 10a1.4 1.4 0 1 0 2.8 0a1.4 1.4 0 1 0-2.8 0M8.6 10a1.4 1.4 0 1 0 2.8 0a1.4 1.4 0 1 0-2.8 0M13.3 10a1.4 1.4 0 1 0 2.8 0a1.4 1.4 0 1 0-2.8 0",
  copy: "M7 7h9v9H7zM4 13V4h9",
  again: "M15.5 7A6.2 6.2 0 1 0 16.2 11M16 3.5V7h-3.5",
  keyboard: "M2.5 5.5h15v9h-15zM5.5 8.5h.01M8.5 8.5h.01M11.5 8.5h.01M14.5 8.5h.01M6.5 11.8h7",
  warning: "M10 3.5 17.5 16.5h-15zM10 8.5v3.5M10 14.3h.01",
  film: "M3 4.5h14v11H3zM6.5 4.5v11M13.5 4.5v11M3 8.2h3.5M3 11.8h3.5M13.5 8.2H17M13.5 11.8H17",
  bolt: "M11 3 5 11.5h4.5L9 17l6-8.5h-4.5z",
};
const FILLED = new Set(["play", "pause", "stop", "more"]);

/** An icon by name. It says nothing to screen readers: what holds it needs a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  if (FILLED.has(name)) svg.classList.add("filled");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button. Without `text` the label is for screen readers and as a tip only. */
export function button({ label, text, iconName, kind = "", on, ...rest }) {
  return h(
    "button",
    { type: "button", class: `button ${kind}`, "aria-label": text ? null : label, title: text ? null : label, on: { click: on }, ...rest },
    iconName ? icon(iconName) : null,
    text ? h("span", {}, text) : null,
  );
}

/** Say something to screen readers. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** Show a short message at the edge for some seconds; `action` is {text, on} or nothing. */
export function toast(text, action = null) {
  const holder = document.getElementById("toasts");
  const note = h("div", { class: "toast" }, h("span", {}, text));
  const leave = () => note.remove();
  if (action) {
    note.append(button({ text: action.text, kind: "plain small", on: () => { leave(); action.on(); } }));
  }
  holder.append(note);
  setTimeout(leave, 8000);
}
