// Keys of the view of a video.

import { showKeys } from "./dialogs.js";

const isField = (element) => element.matches("textarea, select, [contenteditable]") || (element.matches("input") && !["checkbox", "radio", "range", "button"].includes(element.type));
const usesSpace = (element) => element.matches("button, summary, a, input, label");
const usesArrows = (element) => element.matches("input, .moment, .scroller, summary, .menu *");

/** Listen until `signal` ends. `view` has player, controls, goToMoment(step), focusQuestion(), stop(). */
export function listenToKeys(view, signal) {
  const { player, controls } = view;
  const move = (seconds) => () => player.seek(player.time + seconds);
  const actions = {
    k: () => player.toggle(), j: move(-10), l: move(10), n: () => view.goToMoment(1), p: () => view.goToMoment(-1),
    m: controls.mute, f: controls.fullScreen, c: controls.toggleCaptions, "?": showKeys, "/": view.focusQuestion,
    Escape: view.stop,
  };
  const careful = { " ": [usesSpace, () => player.toggle()], ArrowLeft: [usesArrows, move(-5)], ArrowRight: [usesArrows, move(5)] };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const { target } = event;
    if (isField(target)) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const [isUsed, action] = careful[name] ?? [() => false, actions[name]];
    if (!action || isUsed(target)) return;
    event.preventDefault();
    action();
  }, { signal });
}
