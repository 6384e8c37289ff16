// The whole video as a line: what was watched, small pictures, where the playhead is, and the moments of an answer.

import { h } from "./dom.js";
import { clock, momentWords, rulerStep } from "./format.js";
import { Strip } from "./strip.js";

/**
 * A timeline of a player. `onMoment(index)` is called when a moment is chosen. Events of the user go straight to the
 * player; `setMoments`, `setWatched`, `setPart`, `setGaps` and `setFilmstrip` say what to draw.
 */
export class Timeline {
  constructor(player, onMoment) {
    this.player = player;
    this.onMoment = onMoment;
    this.moments = [];
    this.lane = h("div", { class: "lane", role: "group", "aria-label": "Moments" });
    this.echoes = h("div", { class: "echoes", "aria-hidden": "true" });
    this.empty = h("p", { class: "lane-empty" }, "The moments of an answer appear here");
    this.strip = new Strip();
    this.watched = h("div", { class: "watched" });
    this.shades = h("div", { class: "shades", "aria-hidden": "true" });
    this.slider = h("input", {
      type: "range", class: "slider", min: 0, max: 1, step: 0.1, value: 0, "aria-label": "Position in the video",
    });
    this.playhead = h("div", { class: "playhead", "aria-hidden": "true" });
    this.preview = h("div", { class: "preview", "aria-hidden": "true", hidden: true }, h("canvas"), h("span"));
    this.ruler = h("div", { class: "ruler", "aria-hidden": "true" });
    this.band = h("div", { class: "band" }, this.watched, this.strip.element, this.shades, this.slider);
    this.element = h(
      "div", { class: "timeline" },
      h("div", { class: "tracks" }, this.echoes, this.empty, this.lane, this.band, this.playhead, this.preview), this.ruler,
    );
    this.#listen();
  }

  #listen() {
    this.slider.addEventListener("input", () => this.player.seek(Number(this.slider.value)));
    this.slider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -5, ArrowRight: 5, ArrowDown: -5, ArrowUp: 5, PageUp: 60, PageDown: -60 }[event.key];
      if (step === undefined) return;
      event.preventDefault(); // a step of the slider itself would be a tenth of a second
      this.player.seek(this.player.time + step);
    });
    this.band.addEventListener("pointermove", (event) => this.#showPreview(event));
    this.band.addEventListener("pointerleave", () => { this.preview.hidden = true; });
    this.lane.addEventListener("keydown", (event) => this.#walk(event));
    this.player.addEventListener("time", () => this.#showTime());
    this.player.addEventListener("length", () => this.#layOut());
    new ResizeObserver(() => this.#layOut()).observe(this.element);
  }

  get length() {
    return Number.isFinite(this.player.length) && this.player.length > 0 ? this.player.length : NaN;
  }

  /** Where a second lies, as a CSS length. */
  #at(seconds) {
    return `${(Math.min(1, Math.max(0, seconds / this.length)) * 100).toFixed(4)}%`;
  }

  #layOut() {
    this.element.classList.toggle("no-length", !this.length);
    if (!this.length) return;
    this.slider.max = this.length;
    this.strip.draw(this.length);
    this.#drawRuler();
    this.#drawShades();
    this.#drawMoments();
    this.#showTime();
  }

  #drawRuler() {
    const step = rulerStep(this.length, Math.max(2, Math.floor(this.element.clientWidth / 84)));
    const marks = [];
    for (let at = 0; at <= this.length; at += step) {
      marks.push(h("span", { style: { left: this.#at(at) } }, clock(at)));
    }
    this.ruler.replaceChildren(...marks);
  }

  #showTime() {
    if (!this.length) return;
    const { time } = this.player;
    this.slider.value = time;
    this.slider.setAttribute("aria-valuetext", `${clock(time)} of ${clock(this.length)}`);
    this.playhead.style.left = this.#at(time);
    for (const [place, button] of [...this.lane.children].entries()) {
      const span = this.shown[place];
      button.classList.toggle("now", time >= span.start_seconds - 0.05 && time < span.end_seconds);
    }
  }

  #showPreview(event) {
    if (!this.length || event.pointerType === "touch") return;
    const box = this.band.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const [canvas, label] = this.preview.children;
    label.textContent = clock(share * this.length);
    canvas.hidden = !this.strip.paint(canvas, share * this.length, 144);
    this.preview.hidden = false;
    const half = Math.min(0.5, this.preview.offsetWidth / 2 / box.width);
    this.preview.style.left = `${Math.min(1 - half, Math.max(half, share)) * 100}%`;
  }

  /** Arrows go from moment to moment in the order of time. */
  #walk(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity }[event.key];
    const buttons = [...this.lane.children];
    const at = buttons.indexOf(document.activeElement);
    if (step === undefined || at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    this.#makeReachable(Math.min(buttons.length - 1, Math.max(0, at + step))).focus();
  }

  /** One of the moments is reached with Tab, the others with arrows. */
  #makeReachable(place) {
    for (const [index, button] of [...this.lane.children].entries()) button.tabIndex = index === place ? 0 : -1;
    return this.lane.children[place];
  }

  /** The moments of the answer that is looked at, strongest first; `others` are drawn faintly. */
  setMoments(moments, others = []) {
    this.moments = moments;
    this.empty.hidden = moments.length > 0;
    this.others = others;
    if (this.length) this.#layOut();
  }

  #drawMoments() {
    const strongest = Math.max(...this.moments.map((span) => span.weight), 1e-9);
    const byTime = [...this.moments.entries()].sort(([, a], [, b]) => a.start_seconds - b.start_seconds);
    this.shown = byTime.map(([, span]) => span);
    const hadFocus = this.lane.contains(document.activeElement) ? [...this.lane.children].indexOf(document.activeElement) : -1;
    this.lane.replaceChildren(...byTime.map(([index, span]) => this.#momentButton(index, span, strongest)));
    if (byTime.length) this.#makeReachable(Math.min(Math.max(0, hadFocus), byTime.length - 1));
    if (hadFocus >= 0) this.lane.children[Math.min(hadFocus, byTime.length - 1)]?.focus();
    this.echoes.replaceChildren(...(this.others ?? []).map((span) => h("i", { style: this.#place(span) })));
  }

  #place(span) {
    const share = (span.end_seconds - span.start_seconds) / this.length;
    return { left: this.#at(span.start_seconds), width: `${(share * 100).toFixed(4)}%` };
  }

  #momentButton(index, span, strongest) {
    const label = momentWords(span, index);
    return h(
      "button",
      {
        type: "button", class: "moment", "aria-label": label, title: label,
        style: { ...this.#place(span), "--strength": (span.weight / strongest).toFixed(3) },
        on: { click: () => { this.onMoment(index); } },
      },
      h("span", { class: "bar" }), h("span", { class: "number" }, String(index + 1)),
    );
  }

  /** How much of the video has been watched: 0 to 1; null once that is no news. */
  setWatched(share) {
    this.element.classList.toggle("watching", share !== null);
    this.watched.style.width = share === null ? "100%" : `${share * 100}%`;
  }

  /** The part in the memory, and its damaged gaps, in seconds. */
  setPart(start, end, gaps) {
    this.part = { start, end, gaps };
    if (this.length) this.#drawShades();
  }

  #drawShades() {
    const { start = 0, end = null, gaps = [] } = this.part ?? {};
    const shade = (from, to, kind, title) =>
      to - from > 0.5
        ? [h("i", { class: kind, title, style: this.#place({ start_seconds: from, end_seconds: to }) })]
        : [];
    this.shades.replaceChildren(
      ...shade(0, start, "outside", "Not watched"),
      ...shade(end ?? this.length, this.length, "outside", "Not watched"),
      ...gaps.flatMap((gap) => shade(gap.start_seconds, gap.end_seconds, "gap", "Damaged: nothing could be seen here")),
    );
  }

  /** Small pictures of the whole video: a loaded image and how it is laid out. */
  setFilmstrip(sheet) {
    this.strip.setSheet(sheet);
    if (this.length) this.strip.draw(this.length);
  }
}
