// The first view: add a video, or open one that was watched before.

import * as api from "./api.js";
import { button, fill, h, icon, toast } from "./dom.js";
import { ago, bytes, clock, duration } from "./format.js";
import { pickAddress, pickMedia } from "./picker.js";
import { memoryWords, uploadWords } from "./status.js";
import { uploads } from "./uploads.js";

const REFRESH_MS = 2000;

export class HomeView {
  constructor(app) {
    this.app = app;
    this.ending = new AbortController();
    this.pictures = new Map(); // blob addresses by memory id
    this.cards = new Map(); // by memory id
    this.sending = h("ul", { class: "videos", "aria-label": "Videos being sent" });
    this.list = h("ul", { class: "videos", "aria-label": "Videos" });
    this.library = h("section", { class: "library", hidden: true }, h("h2", {}, "Videos"), this.sending, this.list);
    this.note = h("p", { class: "problem", role: "status", hidden: true });
    this.element = h("div", { class: "home" }, this.#hero(), this.note, this.library);
    this.name = "";
    this.drawUploads = () => this.#drawUploads();
    uploads.addEventListener("change", this.drawUploads);
    this.#drawUploads();
    this.#refresh();
  }

  tools() {
    return [];
  }

  #hero() {
    const { settings } = this.app;
    const input = h("input", { type: "file", id: "video-file", accept: "video/*,.mkv,.avi,.ts,.m2ts,.mov,.webm", multiple: true, class: "unseen", tabindex: "-1", "aria-label": "Video files", on: { change: () => { this.app.addFiles(input.files); input.value = ""; } } });
    const limits = [
      settings.max_upload_bytes ? `up to ${bytes(settings.max_upload_bytes)}` : "",
      settings.max_video_seconds ? `up to ${duration(settings.max_video_seconds)} long` : "",
    ].filter(Boolean);
    return h(
      "section", { class: "hero" },
      h(
        "div", { class: "hero-words" },
        h("h1", {}, "Find the moment in an hour of video"),
        h("p", { class: "lead" }, "A video is watched once. Then ask about it as often as you like: every answer shows the moments that the model looked at."),
        this.app.note ? h("p", { class: "caution" }, this.app.note) : null,
      ),
      h(
        "div", { class: "drop" },
        h("div", { class: "reel", "aria-hidden": "true" }, Array.from({ length: 11 }, () => h("i", {}))),
        h("p", { class: "drop-title" }, "Drop a video here"),
        h(
          "div", { class: "drop-buttons" }, input,
          button({ text: "Choose a video", kind: "primary", on: () => input.click() }),
          settings.media_root ? button({ text: "From the server's folder", iconName: "folder", on: () => this.#pick(pickMedia, (path) => ({ media_path: path })) }) : null,
          settings.allow_urls ? button({ text: "From an address", iconName: "link", on: () => this.#pick(pickAddress, (url) => ({ url })) }) : null,
        ),
        h("p", { class: "quiet" }, `It goes to the server at ${window.location.host} and nowhere else${limits.length ? `; ${limits.join(", ")}` : ""}.`),
      ),
    );
  }

  async #pick(open, source) {
    const chosen = await open();
    if (!chosen) return;
    try {
      this.app.go(`#/${(await api.watch(source(chosen))).id}`);
    } catch (error) {
      toast(error.message);
    }
  }

  // The list

  async #refresh() {
    if (this.ending.signal.aborted) return;
    let isBusy = false;
    try {
      const memories = await api.memories();
      if (this.ending.signal.aborted) return;
      this.note.hidden = true;
      this.#drawMemories(memories);
      isBusy = memories.some(({ state }) => state === "queued" || state === "watching");
    } catch (error) {
      if (error.status === 401) return this.app.fail(error);
      fill(this.note, icon("warning"), h("span", {}, error.message));
      this.note.hidden = false;
      isBusy = true;
    }
    this.timer = setTimeout(() => this.#refresh(), isBusy || uploads.unfinished.length ? REFRESH_MS : 5 * REFRESH_MS);
  }

  #drawUploads() {
    const shown = uploads.list.filter((upload) => upload.state !== "sent");
    fill(this.sending, ...shown.map((upload) => this.#uploadCard(upload)));
    this.sending.hidden = !shown.length;
    this.#showLibrary();
  }

  #uploadCard(upload) {
    const words = h("span", { class: "video-meta" });
    const bar = h("i", {});
    const remove = button({ label: `Stop sending ${upload.file.name}`, iconName: "close", kind: "icon-only small", on: () => uploads.remove(upload) });
    const item = h(
      "li", { class: "video-card" },
      h("span", { class: "thumb" }, h("span", { class: "thumb-sign" }, icon("film")), h("span", { class: "track" }, bar)),
      h("span", { class: "video-words" }, h("span", { class: "video-name" }, upload.file.name), words), remove,
    );
    const draw = () => {
      const { title, detail, share, kind } = uploadWords(upload);
      words.textContent = kind === "busy" ? detail : `${title}. ${detail}`;
      item.dataset.kind = kind;
      bar.style.width = `${(share ?? 0) * 100}%`;
      if (upload.state === "sent") this.#refresh();
    };
    upload.addEventListener("change", draw, { signal: this.ending.signal });
    draw();
    return item;
  }

  #drawMemories(memories) {
    const ids = new Set(memories.map(({ id }) => id));
    for (const id of this.cards.keys()) if (!ids.has(id)) this.cards.delete(id);
    for (const memory of memories) {
      if (!this.cards.has(memory.id)) this.cards.set(memory.id, this.#memoryCard(memory));
      this.cards.get(memory.id).update(memory);
    }
    const order = memories.map(({ id }) => this.cards.get(id).element);
    if (order.length !== this.list.children.length || order.some((each, index) => this.list.children[index] !== each)) fill(this.list, ...order);
    this.#showLibrary();
  }

  #showLibrary() {
    const isFilled = this.cards.size > 0 || this.sending.children.length > 0;
    this.library.hidden = !isFilled;
    this.element?.classList.toggle("filled", isFilled);
  }

  #memoryCard(first) {
    let memory = first;
    const image = h("img", { alt: "", hidden: true, width: 16, height: 9 });
    const sign = h("span", { class: "thumb-sign" });
    const badge = h("span", { class: "badge" });
    const bar = h("i", {});
    const track = h("span", { class: "track" }, bar);
    const meta = h("span", { class: "video-meta" });
    const remove = button({ label: `Remove ${first.name}`, iconName: "trash", kind: "icon-only small", on: async () => { if (await this.app.removeMemory(memory)) this.#refresh(); } });
    const element = h(
      "li", { class: "video-card" },
      h(
        "a", { href: `#/${first.id}`, class: "video-link" },
        h("span", { class: "thumb" }, sign, image, badge, track),
        h("span", { class: "video-words" }, h("span", { class: "video-name" }, first.name), meta),
      ),
      remove,
    );
    const update = (now) => {
      memory = now;
      const { kind, title, detail, share } = memoryWords(now);
      element.dataset.kind = kind;
      badge.textContent = kind === "ready" && now.duration_seconds ? clock(now.duration_seconds) : "";
      badge.hidden = !badge.textContent;
      fill(sign, kind === "failed" ? icon("warning") : icon("film"));
      track.hidden = kind !== "busy";
      bar.style.width = `${(share ?? 0) * 100}%`;
      meta.textContent = kind === "ready" ? `${partOf(now)}${ago(now.created_at)}` : kind === "failed" ? detail : `${title} · ${detail}`;
      if (kind === "ready" && image.hidden) this.#loadPicture(image, now);
    };
    return { element, update };
  }

  async #loadPicture(image, memory) {
    image.hidden = false;
    try {
      const start = memory.start_seconds ?? 0;
      const at = start + (memory.duration_seconds ?? 0) * 0.1;
      const address = await api.picture(api.framePath(memory.id, at, 480), this.ending.signal);
      this.pictures.set(memory.id, address);
      image.src = address;
    } catch {
      image.hidden = true; // the name says enough
    }
  }

  close() {
    this.ending.abort();
    clearTimeout(this.timer);
    uploads.removeEventListener("change", this.drawUploads);
    for (const address of this.pictures.values()) URL.revokeObjectURL(address);
  }
}

function partOf({ start_seconds: start, end_seconds: end, fps }) {
  const part = start || end !== null ? `${clock(start ?? 0)} to ${end === null ? "the end" : clock(end)} · ` : "";
  return `${part}${fps === 1 ? "" : `${fps} frames a second · `}`;
}
