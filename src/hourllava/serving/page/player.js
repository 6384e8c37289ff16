// Shows the video; where the browser cannot play the file, single pictures from the server on the same clock.

import { framePath, picture } from "./api.js";
import { h } from "./dom.js";
import { clock } from "./format.js";

const STILL_WIDTH = 960;

/**
 * One clock in seconds with a picture of it. Events: "time" (also after a seek), "playing" (began or stopped),
 * "length" (duration known), "stills" (the browser cannot play the file).
 */
export class Player extends EventTarget {
  constructor() {
    super();
    this.video = h("video", { preload: "metadata", playsinline: true, tabindex: "-1", "aria-label": "Video" });
    this.still = h("img", { class: "still", alt: "", hidden: true });
    this.note = h("p", { class: "stage-note", hidden: true });
    this.element = h("div", { class: "screen" }, this.video, this.still, this.note);
    this.isStill = false;
    this.memoryId = null;
    this.stillTime = 0;
    this.knownLength = NaN;
    this.pendingSeek = 0;
    this.timer = null;
    this.fetching = null;
    this.captions = null;
    this.#listen();
  }

  #listen() {
    const tell = (name) => () => this.dispatchEvent(new Event(name));
    for (const event of ["timeupdate", "seeking", "seeked"]) this.video.addEventListener(event, tell("time"));
    for (const event of ["play", "pause", "ended"]) this.video.addEventListener(event, tell("playing"));
    this.video.addEventListener("durationchange", tell("length"));
    this.video.addEventListener("loadedmetadata", () => {
      if (this.video.videoWidth === 0) this.#useStills(); // sound without a picture: the codec is unknown
      else this.element.style.setProperty("--aspect", `${this.video.videoWidth} / ${this.video.videoHeight}`);
      if (this.pendingSeek) this.video.currentTime = this.pendingSeek;
      this.pendingSeek = 0;
    });
    this.video.addEventListener("error", () => {
      if (this.video.getAttribute("src")) this.#useStills();
    });
    this.element.addEventListener("click", () => this.toggle());
    document.addEventListener("fullscreenchange", () => {
      this.video.controls = document.fullscreenElement === this.video; // our own controls are not to be seen there
    });
  }

  /** Show a file at an address; pictures of it come from the server once `memoryId` is set. */
  load(address) {
    this.#setStills(false);
    this.video.src = address;
  }

  /** The memory whose pictures stand in for the video. */
  setMemory(memoryId) {
    const isNew = this.memoryId !== memoryId;
    this.memoryId = memoryId;
    if (isNew && this.isStill) this.#showStill();
  }

  #setStills(isStill) {
    this.isStill = isStill;
    this.video.hidden = isStill;
    this.still.hidden = !isStill;
    this.element.classList.toggle("stills", isStill);
    if (!isStill) this.say("");
  }

  #useStills() {
    if (this.isStill) return;
    this.stillTime = this.video.currentTime || this.pendingSeek || 0;
    this.video.pause();
    this.#setStills(true);
    this.dispatchEvent(new Event("stills"));
    this.#showStill();
  }

  /** A line over the picture; "" takes it away. */
  say(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  async #showStill() {
    if (!this.memoryId) {
      this.say("This browser cannot play this kind of file. Pictures of it appear here when it has been sent.");
      return;
    }
    this.fetching?.abort();
    this.fetching = new AbortController();
    const seconds = this.stillTime;
    try {
      const address = await picture(framePath(this.memoryId, seconds, STILL_WIDTH), this.fetching.signal);
      const old = this.still.src;
      this.still.src = address;
      this.still.alt = `The video at ${clock(seconds)}`;
      if (old.startsWith("blob:")) URL.revokeObjectURL(old);
      this.say("");
    } catch (error) {
      if (error.name === "AbortError") return;
      this.say(`No picture at ${clock(seconds)}: ${error.message}`);
    }
  }

  /** What the server knows of the length; used until or unless the browser knows it. */
  setLength(seconds) {
    this.knownLength = seconds;
    this.dispatchEvent(new Event("length"));
  }

  get length() {
    const own = this.video.duration;
    return !this.isStill && Number.isFinite(own) && own > 0 ? own : this.knownLength;
  }

  get time() {
    return this.isStill ? this.stillTime : this.pendingSeek || this.video.currentTime;
  }

  get isPlaying() {
    return this.isStill ? this.timer !== null : !this.video.paused && !this.video.ended;
  }

  seek(seconds) {
    const last = Number.isFinite(this.length) ? this.length : Infinity;
    const target = Math.min(Math.max(0, seconds), last);
    if (this.isStill) {
      this.stillTime = target;
      this.#showStill();
    } else if (this.video.readyState === 0) {
      this.pendingSeek = target;
    } else {
      this.video.currentTime = target;
    }
    this.dispatchEvent(new Event("time"));
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    if (!this.isStill) {
      this.video.play().catch(() => {}); // refused or replaced: the button shows what is true
      return;
    }
    this.timer = setInterval(() => {
      if (this.stillTime + 1 > this.length) this.pause();
      else this.seek(this.stillTime + 1);
    }, 1000);
    this.dispatchEvent(new Event("playing"));
  }

  pause() {
    this.video.pause();
    clearInterval(this.timer);
    this.timer = null;
    this.dispatchEvent(new Event("playing"));
  }

  /** Show WebVTT text as captions; null takes them away. */
  setCaptions(text, label) {
    this.captions?.remove();
    if (this.captions) URL.revokeObjectURL(this.captions.src);
    this.captions = null;
    if (text === null) return;
    const address = URL.createObjectURL(new Blob([text], { type: "text/vtt" }));
    this.captions = h("track", { kind: "captions", label, src: address, default: true });
    this.video.append(this.captions);
    this.captions.track.mode = "showing";
  }

  close() {
    this.pause();
    this.fetching?.abort();
    this.video.removeAttribute("src");
    this.video.load();
  }
}
