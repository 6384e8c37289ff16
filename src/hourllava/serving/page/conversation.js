// The column of questions and answers.

import { isRunning } from "./asking.js";
import { composer } from "./composer.js";
import { announce, button, fill, h, toast } from "./dom.js";
import { plural } from "./format.js";
import { asText, turnView } from "./turn.js";

const IDEAS = ["What happens in this video?", "How does it begin, and how does it end?", "Who or what appears most often?"];

/**
 * The conversation of an Asking. `onSelect(turn | null)` when other moments are to be drawn, `onMoment(turn, index)`
 * when one is chosen. `subtitles` is {element, current()}; `note` is a line about the model, or null.
 */
export function conversation({ asking, subtitles, note, mostOptions, onSelect, onMoment }) {
  let selected = null;
  const views = new Map();
  const log = h("div", { class: "log", role: "log", "aria-label": "Answers", "aria-live": "polite" });
  const empty = h("div", { class: "log-empty" });
  const scroller = h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Questions and answers" }, empty, log);
  const clear = button({ text: "Clear", kind: "plain small", on: clearAll });
  const heading = h("h2", {}, "Questions");
  const write = composer({ onAsk, onStop: () => asking.stopAll(), extra: subtitles.element, mostOptions });
  const element = h(
    "section", { class: "conversation", "aria-label": "Conversation" },
    h("header", { class: "conversation-top" }, heading, h("span", { class: "gap" }), clear), scroller, write.element,
  );
  const actions = {
    select, stop: (turn) => asking.stop(turn), again: (turn) => asking.again(turn),
    moment: (turn, index) => { select(turn); onMoment(turn, index); },
    remove: (turn) => asking.remove(turn),
    copy: (turn) => navigator.clipboard.writeText(asText(turn)).then(() => toast("The answer is copied.")).catch(() => toast("The browser did not allow copying.")),
  };

  function onAsk({ kind, questions, options, useEarlier }) {
    const details = { options, useEarlier, subtitles: kind === "find" ? null : subtitles.current() };
    const [first] = questions.map((question) => asking.add(kind, question, details));
    select(first);
    reveal();
  }

  const isOwnScroller = () => getComputedStyle(scroller).overflowY !== "visible"; // on a phone the page scrolls

  /** Bring the newest turn into sight. */
  function reveal() {
    if (isOwnScroller()) scroller.scrollTop = scroller.scrollHeight;
    else log.lastElementChild?.scrollIntoView({ block: "end" });
  }

  function clearAll() {
    const removed = asking.turns;
    asking.clear();
    toast(`${plural(removed.length, "question")} removed.`, { text: "Undo", on: () => asking.restore(removed) });
  }

  function select(turn) {
    selected = turn;
    for (const [id, view] of views) view.setSelected(id === turn?.id);
    onSelect(turn);
  }

  function drawList() {
    for (const [id, view] of views) {
      if (!asking.turns.some((turn) => turn.id === id)) {
        view.element.remove();
        views.delete(id);
      }
    }
    for (const turn of asking.turns) {
      if (!views.has(turn.id)) views.set(turn.id, turnView(turn, actions));
    }
    const order = asking.turns.map((turn) => views.get(turn.id).element);
    if (order.some((each, index) => log.children[index] !== each)) fill(log, ...order);
    empty.hidden = asking.turns.length > 0;
    clear.hidden = !asking.turns.length;
    write.setRunning(asking.running.length);
    if (!asking.turns.includes(selected)) select(asking.turns.findLast((turn) => turn.evidence.length) ?? asking.turns.at(-1) ?? null);
  }

  function drawTurn({ detail: turn }) {
    const isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
    views.get(turn.id)?.update();
    write.setRunning(asking.running.length);
    if (turn === selected) onSelect(turn);
    if (isAtEnd && isOwnScroller()) reveal();
    if (!isRunning(turn)) announce(turn.state === "done" ? `Answered: ${turn.question}` : `${turn.state}: ${turn.question}`);
  }

  /** Whether there is, or will be, something to ask about. */
  function setEnabled(isEnabled) {
    write.setEnabled(isEnabled);
    if (empty.dataset.enabled === String(isEnabled)) return;
    empty.dataset.enabled = String(isEnabled);
    if (!isEnabled) return fill(empty, h("p", { class: "lead" }, "Nothing to ask about yet"), h("p", {}, "Questions need a video that has been watched."));
    fill(
      empty,
      h("p", { class: "lead" }, "Ask about this video"),
      h("p", {}, "Each answer comes with the moments that the model looked at. Click one to see it."),
      note ? h("p", { class: "caution" }, note) : null,
      h("ul", { class: "ideas" }, IDEAS.map((idea) => h("li", {}, button({ text: idea, kind: "idea", on: () => write.write(idea) })))),
    );
  }

  asking.addEventListener("list", drawList);
  asking.addEventListener("turn", drawTurn);
  setEnabled(true);
  drawList();
  scroller.scrollTop = scroller.scrollHeight;
  return { element, focus: write.focus, setEnabled };
}
