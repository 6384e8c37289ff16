// Where a question is written: asked for an answer, with choices, or to find moments.

import { button, h } from "./dom.js";
import { plural } from "./format.js";
import { habit, saveHabit } from "./saved.js";

const KINDS = {
  ask: { name: "Ask", hint: "Ask about this video", label: "Question" },
  choose: { name: "Choose", hint: "A question with choices", label: "Question" },
  find: { name: "Find", hint: "Describe a moment", label: "Description" },
};
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/** The lines of a text that hold something. */
export const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** Choices from pasted lines: "A. red" and "(b) blue" lose their letters. */
export const choicesOf = (text) => linesOf(text).map((line) => line.replace(/^\(?[A-Za-z][.):]\s+/, ""));

/**
 * A composer. `onAsk({kind, questions, options, useEarlier})` is called with what was written; `extra` is shown beside
 * the button (subtitles). `setEnabled(false)` when nothing can be asked.
 */
export function composer({ onAsk, onStop, extra, mostOptions }) {
  let kind = "ask";
  const field = h("textarea", { id: "question", rows: 1, placeholder: KINDS.ask.hint, "aria-label": "Question", "aria-describedby": "question-hint", enterkeyhint: "send" });
  const hint = h("p", { class: "hint", id: "question-hint" });
  const list = h("ol", { class: "option-fields", hidden: true });
  const earlier = h("input", { type: "checkbox", checked: habit("earlier", false) });
  const earlierLabel = h("label", { class: "check", title: "The model then reads the questions and answers above, too" }, earlier, "Use earlier answers");
  const ask = button({ text: "Ask", iconName: "send", kind: "primary ask", on: submit });
  const stop = button({ text: "Stop", iconName: "stop", kind: "stop-all", hidden: true, on: onStop });
  const kinds = h(
    "fieldset", { class: "kinds" }, h("legend", { class: "unseen" }, "What to do"),
    Object.entries(KINDS).map(([name, { name: text }]) =>
      h("label", {}, h("input", { type: "radio", name: "kind", value: name, checked: name === kind, on: { change: () => setKind(name) } }), h("span", {}, text))),
  );
  const element = h(
    "form", { class: "composer", on: { submit: (event) => { event.preventDefault(); submit(); } } },
    h("div", { class: "composer-top" }, kinds, h("span", { class: "gap" }), extra),
    h("div", { class: "composer-field" }, field, stop, ask), list,
    h("div", { class: "composer-foot" }, earlierLabel, h("span", { class: "gap" }), hint),
  );
  earlier.addEventListener("change", () => saveHabit("earlier", earlier.checked));
  field.addEventListener("input", refresh);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });

  // On a phone the composer is one line until it is used. It closes some time after a tap elsewhere: what is tapped must
  // not move away between finger down and finger up.
  element.addEventListener("focusin", () => element.classList.add("open"));
  element.addEventListener("focusout", () => setTimeout(() => {
    if (!element.contains(document.activeElement)) element.classList.remove("open");
  }, 500));

  function setKind(next) {
    kind = next;
    field.placeholder = KINDS[kind].hint;
    field.setAttribute("aria-label", KINDS[kind].label);
    list.hidden = kind !== "choose";
    earlierLabel.hidden = kind !== "ask";
    if (kind === "choose" && !list.children.length) addOptions(["", ""]);
    refresh();
    field.focus();
  }

  const optionFields = () => [...list.querySelectorAll("input")];

  function addOptions(texts) {
    for (const text of texts.slice(0, mostOptions - list.children.length)) {
      const input = h("input", { type: "text", on: { input: keepOneEmpty, keydown: optionKey, paste: optionPaste } });
      input.value = text;
      list.append(h("li", {}, h("span", { class: "letter", "aria-hidden": "true" }), input));
    }
    for (const [index, input] of optionFields().entries()) {
      input.setAttribute("aria-label", `Choice ${LETTERS[index]}`);
      input.placeholder = `Choice ${LETTERS[index]}`;
      input.previousSibling.textContent = LETTERS[index];
    }
  }

  /** There is always one empty field to write into. */
  function keepOneEmpty() {
    const inputs = optionFields();
    if (inputs.every((input) => input.value.trim())) addOptions([""]);
    refresh();
  }

  function optionKey(event) {
    const inputs = optionFields();
    const at = inputs.indexOf(event.target);
    if (event.key === "Enter") {
      event.preventDefault();
      if (event.target.value.trim() && inputs[at + 1]) inputs[at + 1].focus();
      else submit();
    } else if (event.key === "Backspace" && !event.target.value && inputs.length > 2) {
      event.preventDefault();
      event.target.parentElement.remove();
      addOptions([]);
      inputs[Math.max(0, at - 1)].focus();
    }
  }

  function optionPaste(event) {
    const pasted = choicesOf(event.clipboardData.getData("text"));
    if (pasted.length < 2) return;
    event.preventDefault();
    event.target.value = pasted[0];
    for (const empty of optionFields().filter((input) => !input.value)) empty.parentElement.remove();
    addOptions([...pasted.slice(1), ""]);
    keepOneEmpty();
  }

  const options = () => optionFields().map((input) => input.value.trim()).filter(Boolean);

  function refresh() {
    const questions = linesOf(field.value);
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight, 180)}px`;
    const isSeveral = questions.length > 1 && kind !== "choose";
    ask.lastChild.textContent = kind === "choose" ? "Choose" : kind === "find" ? "Find" : isSeveral ? `Ask ${questions.length}` : "Ask";
    if (isSeveral) hint.textContent = `${plural(questions.length, kind === "ask" ? "question" : "description")}, one a line`;
    else if (kind === "choose") hint.textContent = "Paste a list to fill in several choices";
    else if (kind === "find") hint.textContent = "Shows moments, writes no answer";
    else hint.textContent = "Shift + Enter: new line";
    element.classList.toggle("written", Boolean(field.value.trim()));
    ask.disabled = !element.classList.contains("usable") || !questions.length || (kind === "choose" && options().length < 2);
  }

  function submit() {
    refresh();
    if (ask.disabled) return;
    const questions = kind === "choose" ? [linesOf(field.value).join(" ")] : linesOf(field.value);
    onAsk({ kind, questions, options: kind === "choose" ? options() : [], useEarlier: kind === "ask" && earlier.checked });
    field.value = "";
    if (kind === "choose") {
      list.replaceChildren();
      addOptions(["", ""]);
    }
    refresh();
  }

  element.classList.add("usable");
  refresh();
  return {
    element,
    focus: () => field.focus(),
    /** Put a text into the field, for the user to change or send. */
    write(text) {
      field.value = text;
      refresh();
      field.focus();
    },
    setRunning(number) {
      stop.hidden = !number;
      stop.lastChild.textContent = number > 1 ? `Stop ${number}` : "Stop";
    },
    setEnabled(isEnabled) {
      element.hidden = !isEnabled;
      element.classList.toggle("usable", isEnabled);
      field.disabled = !isEnabled;
      refresh();
    },
  };
}
