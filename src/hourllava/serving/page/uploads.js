// Videos on their way to the server. They go on while the user looks at something else on this page.

import * as api from "./api.js";
import { bytes } from "./format.js";

/** One video. Event "change". States: waiting, sending, sent, failed, stopped. */
export class Upload extends EventTarget {
  constructor(file) {
    super();
    Object.assign(this, { file, state: "waiting", sent: 0, rate: 0, memoryId: null, error: null });
    this.stopper = new AbortController();
  }

  get secondsLeft() {
    return this.rate > 0 ? (this.file.size - this.sent) / this.rate : null;
  }

  async run() {
    let last = performance.now();
    this.#set({ state: "sending" });
    const onProgress = (sent) => {
      const now = performance.now();
      const speed = (sent - this.sent) / Math.max(1e-3, (now - last) / 1000);
      const rate = this.rate ? 0.8 * this.rate + 0.2 * speed : speed;
      last = now;
      this.#set({ sent, rate });
    };
    try {
      const { hourllava } = await api.uploadVideo(this.file, { onProgress, signal: this.stopper.signal });
      if (!hourllava?.memory_id) throw new api.ApiError("The server does not take this file for a video.");
      this.#set({ state: "sent", sent: this.file.size, memoryId: hourllava.memory_id });
    } catch (error) {
      this.#set({ state: error.name === "AbortError" ? "stopped" : "failed", error });
    }
  }

  /** Not sent at all. */
  refuse(reason) {
    this.#set({ state: "failed", error: new api.ApiError(reason, { code: "upload_too_large" }) });
  }

  stop() {
    if (this.state === "waiting") this.#set({ state: "stopped" });
    this.stopper.abort();
  }

  #set(changes) {
    Object.assign(this, changes);
    this.dispatchEvent(new Event("change"));
  }
}

/** All videos of this visit, sent one after the other. Event "change" when one came or went. */
class Uploads extends EventTarget {
  constructor() {
    super();
    this.list = [];
    this.isBusy = false;
    window.addEventListener("beforeunload", (event) => {
      if (this.unfinished.length) event.preventDefault(); // the browser asks whether to leave
    });
  }

  get unfinished() {
    return this.list.filter((upload) => ["waiting", "sending"].includes(upload.state));
  }

  /** Begin to send files; `mostBytes` is what the server takes. */
  add(files, mostBytes = Infinity) {
    const added = [...files].map((file) => new Upload(file));
    for (const upload of added) if (upload.file.size > mostBytes) upload.refuse(`It has ${bytes(upload.file.size)}; the server takes at most ${bytes(mostBytes)}.`);
    this.list.push(...added);
    this.dispatchEvent(new Event("change"));
    this.#work();
    return added;
  }

  remove(upload) {
    upload.stop();
    this.list = this.list.filter((other) => other !== upload);
    this.dispatchEvent(new Event("change"));
  }

  async #work() {
    if (this.isBusy) return;
    this.isBusy = true;
    for (;;) {
      const next = this.list.find((upload) => upload.state === "waiting");
      if (!next) break;
      await next.run();
      if (next.state === "sent" || next.state === "stopped") this.remove(next);
    }
    this.isBusy = false;
  }
}

export const uploads = new Uploads();
