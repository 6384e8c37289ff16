// How one question and its answer look.

import { isRunning } from "./asking.js";
import { button, fill, h, icon, unseen } from "./dom.js";
import { clock, count, momentWords, percent, range } from "./format.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/**
 * A view of a turn. `actions`: select(turn), moment(turn, index), stop(turn), again(turn), remove(turn), copy(turn).
 * `update()` draws the turn as it is now, `setSelected` says whether its moments are those on the timeline.
 */
export function turnView(turn, actions) {
  const question = h("h3", { class: "question" }, turn.question);
  const answer = h("div", { class: "answer" });
  const moments = h("ul", { class: "moments", "aria-label": "Moments" });
  const foot = h("div", { class: "turn-foot" });
  const element = h("article", { class: "turn", data: { kind: turn.kind } }, question, answer, moments, foot);
  element.addEventListener("click", (event) => {
    if (!event.target.closest("button") && !String(window.getSelection())) actions.select(turn);
  });

  /** Buttons are drawn anew only when the state changes: a button that is replaced at every word loses its focus. */
  function update() {
    answer.setAttribute("aria-busy", String(isRunning(turn)));
    fill(answer, ...body(turn));
    if (element.dataset.state === turn.state) return;
    element.dataset.state = turn.state;
    fill(moments, ...turn.evidence.map((span, index) => chip(span, index)));
    moments.hidden = !turn.evidence.length;
    fill(foot, ...footOf(turn, actions));
  }

  function chip(span, index) {
    return h(
      "li", {},
      h(
        "button",
        { type: "button", class: "chip", title: momentWords(span, index), on: { click: () => actions.moment(turn, index) } },
        unseen("Moment "), h("span", { class: "number" }, String(index + 1)), unseen(": "),
        h("span", {}, range(span)), unseen(`, ${percent(span.weight)}`),
      ),
    );
  }

  update();
  return {
    element,
    update,
    setSelected(isSelected) {
      element.classList.toggle("selected", isSelected);
    },
  };
}

function body(turn) {
  if (turn.state === "failed") return [text(turn), problem(turn.error)];
  if (turn.kind === "choose") return options(turn);
  if (turn.kind === "find" && turn.state === "done") {
    return [h("p", { class: "quiet" }, turn.evidence.length ? "The moments nearest to this text." : "No moment was found.")];
  }
  if (turn.text) return [text(turn)];
  return [h("p", { class: "quiet" }, waitingWords(turn))];
}

function text(turn) {
  const lines = turn.text.split(/\n{2,}/).filter((part) => part.trim());
  return lines.map((line) => h("p", {}, line));
}

function waitingWords(turn) {
  if (turn.state === "waiting") return turn.isHeld ? "Asked when the video has been watched" : "Waiting for its turn";
  if (turn.state === "stopped") return "Stopped before an answer.";
  if (turn.state === "done") return "The answer is empty.";
  if (turn.state === "watching") {
    const { frames_done: done, frames_total: total } = turn.progress;
    return total ? `The video is watched first: ${count(done)} of ${count(total)} frames` : "The video is watched first";
  }
  return { ask: "Looking", choose: "Comparing the choices", find: "Looking" }[turn.kind];
}

function problem(error) {
  return h("p", { class: "problem" }, icon("warning"), h("span", {}, error.message));
}

function options(turn) {
  const best = turn.probabilities.length ? turn.probabilities.indexOf(Math.max(...turn.probabilities)) : -1;
  const rows = turn.options.map((option, index) => {
    const share = turn.probabilities[index];
    return h(
      "li", { class: index === best ? "option best" : "option" },
      h("span", { class: "letter" }, LETTERS[index]),
      h("span", { class: "words" }, option, index === best ? unseen(" (chosen)") : null),
      h("span", { class: "share" }, share === undefined ? "" : percent(share)),
      h("span", { class: "track", "aria-hidden": "true" }, h("i", { style: { width: `${(share ?? 0) * 100}%` } })),
    );
  });
  const words = isRunning(turn) || turn.state === "stopped" ? [h("p", { class: "quiet" }, waitingWords(turn))] : [];
  return [h("ol", { class: "options" }, rows), ...words];
}

function footOf(turn, actions) {
  if (isRunning(turn)) {
    return [button({ text: "Stop", iconName: "stop", kind: "plain small stop", on: () => actions.stop(turn) })];
  }
  const facts = [];
  if (turn.state === "stopped" && turn.text) facts.push("Stopped");
  if (turn.finish === "length") facts.push("Cut off at the longest answer allowed");
  if (turn.totalSeconds !== null && turn.state === "done") facts.push(`${turn.totalSeconds.toFixed(1)} s`);
  if (turn.subtitles) facts.push(`with ${turn.subtitles.name}`);
  if (turn.useEarlier) facts.push("with earlier answers");
  const copy = turn.text ? [button({ label: "Copy the answer", iconName: "copy", kind: "icon-only small", on: () => actions.copy(turn) })] : [];
  return [
    h("span", { class: "facts" }, facts.join(" · ")),
    ...copy,
    button({ label: "Ask again", iconName: "again", kind: "icon-only small", on: () => actions.again(turn) }),
    button({ label: "Remove this question", iconName: "close", kind: "icon-only small", on: () => actions.remove(turn) }),
  ];
}

/** The whole of a turn as text, for the clipboard. */
export function asText(turn) {
  const times = turn.evidence.map((span) => `${clock(span.start_seconds)}–${clock(span.end_seconds)}`).join(", ");
  return `${turn.question}\n${turn.text}${times ? `\n(${times})` : ""}`;
}
