// The moments of an answer as pictures.

import { framePath, picture } from "./api.js";
import { fill, h, icon, unseen } from "./dom.js";
import { percent, range } from "./format.js";

const WIDTH = 320;
const RETRY_MILLISECONDS = 2000;

/** A row of cards. `onMoment(index)` when one is chosen. */
export class MomentCards {
  constructor(onMoment) {
    this.onMoment = onMoment;
    this.list = h("ol", { class: "cards" });
    this.title = h("h2", {});
    this.element = h(
      "section", { class: "moment-cards", "aria-label": "Moments as pictures", hidden: true },
      h("header", {}, this.title, h("p", { class: "quiet" }, "Where the model looked, with the share of its attention. This does not prove the answer.")),
      this.list,
    );
    this.pictures = new Map(); // address of a blob by memory and second
    this.loading = null;
  }

  /** Show the moments of a turn, strongest first; null shows none. */
  show(memoryId, turn) {
    this.loading?.abort();
    this.loading = new AbortController();
    const moments = turn?.evidence ?? [];
    this.element.hidden = !moments.length;
    this.title.textContent = moments.length === 1 ? "The moment" : "The moments";
    fill(this.list, ...moments.map((span, index) => h("li", {}, this.#card(memoryId, span, index))));
  }

  #card(memoryId, span, index) {
    const image = h("img", { alt: "", width: 16, height: 9 });
    const shown = h("span", { class: "card-picture" }, icon("film"), image); // a film until the picture is there
    const at = (span.start_seconds + Math.min(span.end_seconds, span.start_seconds + 20)) / 2;
    this.#load(image, memoryId, at, this.loading.signal);
    return h(
      "button",
      { type: "button", class: "card", on: { click: () => this.onMoment(index) } },
      shown, unseen("Moment "),
      h("span", { class: "number" }, String(index + 1)), unseen(": "),
      h("span", { class: "when" }, range(span)),
      h("span", { class: "share" }, percent(span.weight)),
      h("span", { class: "track", "aria-hidden": "true" }, h("i", { style: { width: `${Math.min(1, span.weight) * 100}%` } })),
    );
  }

  async #load(image, memoryId, seconds, signal) {
    const name = `${memoryId} ${seconds.toFixed(1)}`;
    const get = async () => this.pictures.get(name) ?? (await picture(framePath(memoryId, seconds, WIDTH), signal));
    for (const isLast of [false, true]) {
      try {
        const address = await get();
        this.pictures.set(name, address);
        image.src = address;
        return;
      } catch {
        if (isLast || signal.aborted) return; // the film stays: the times are there, and a picture is only a help
        await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
      }
    }
  }

  close() {
    this.loading?.abort();
    for (const address of this.pictures.values()) URL.revokeObjectURL(address);
  }
}
