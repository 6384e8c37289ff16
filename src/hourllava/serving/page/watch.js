// The view of one video: picture, timeline, moments, conversation.

import * as api from "./api.js";
import { Asking, isRunning } from "./asking.js";
import { MomentCards } from "./cards.js";
import { controls as makeControls } from "./controls.js";
import { conversation as makeConversation } from "./conversation.js";
import { askForPart, confirm, menu } from "./dialogs.js";
import { h, toast } from "./dom.js";
import { asCsv, asJson, asSrt, save } from "./exports.js";
import { listenToKeys } from "./keys.js";
import { Player } from "./player.js";
import { forget } from "./saved.js";
import { memoryWords, statusLine, uploadWords } from "./status.js";
import { loadSheet } from "./strip.js";
import { subtitleControl } from "./subtitles.js";
import { Timeline } from "./timeline.js";
import { uploads } from "./uploads.js";

/**
 * A view of a memory, or of an upload that becomes one. `app` has settings, go(address), note. `startSeconds` is where
 * the player stands at first.
 */
export class WatchView {
  constructor(app, { memory = null, upload = null, startSeconds = 0 }) {
    Object.assign(this, { app, memory: null, upload, shown: null, ending: new AbortController() });
    this.player = new Player();
    this.asking = new Asking(app.settings.model);
    this.controls = makeControls(this.player, (step) => this.goToMoment(step));
    this.timeline = new Timeline(this.player, (index) => this.seekTo(this.shown?.evidence[index]));
    this.cards = new MomentCards((index) => this.seekTo(this.shown?.evidence[index]));
    this.status = statusLine({ stop: () => this.#stopWatching(), again: () => this.#again(), remove: () => this.#remove() });
    this.subtitles = subtitleControl((text, name) => {
      this.player.setCaptions(text, name);
      this.controls.setCaptions(text !== null);
    });
    this.conversation = makeConversation({
      asking: this.asking, subtitles: this.subtitles, note: app.note, mostOptions: app.settings.max_options ?? 10,
      onSelect: (turn) => this.#showMoments(turn), onMoment: (turn, index) => this.seekTo(turn.evidence[index]),
    });
    this.element = h(
      "div", { class: "watch" },
      h("section", { class: "stage", "aria-label": "Video" }, this.player.element, this.controls.element, this.timeline.element, this.status.element, this.cards.element),
      this.conversation.element,
    );
    this.controls.setMoments(false);
    listenToKeys({
      player: this.player, controls: this.controls, goToMoment: (step) => this.goToMoment(step),
      focusQuestion: () => this.conversation.focus(), stop: () => this.asking.stopAll(),
    }, this.ending.signal);
    if (startSeconds) this.player.seek(startSeconds);
    if (upload) this.#beginWithUpload();
    else this.#beginWithMemory(memory);
  }

  get name() {
    return this.memory?.name ?? this.upload?.file.name ?? "";
  }

  /** For the top of the page. */
  tools() {
    const when = (text, iconName, on, isDangerous = false) => ({ text, iconName, on, isDangerous });
    const name = this.name.replace(/\.[^.]*$/, "") || "video";
    const saveAnswers = (ending, type, write) => () => {
      if (!this.asking.turns.some((turn) => turn.evidence.length || turn.text)) return toast("There are no answers yet.");
      save(`${name}.${ending}`, write(this.asking.turns), type);
    };
    const video = () => ({ name: this.name, memory_id: this.memory?.id ?? null, duration_seconds: this.memory?.duration_seconds ?? null });
    return [
      menu("Download", "download", [
        when("Answers as JSON", "file", saveAnswers("answers.json", "application/json", (turns) => asJson(video(), turns))),
        when("Answers as a table (CSV)", "file", saveAnswers("answers.csv", "text/csv", (turns) => asCsv(video(), turns))),
        when("Moments as subtitles (SRT)", "captions", saveAnswers("moments.srt", "application/x-subrip", asSrt)),
        when("The memory (safetensors)", "download", () => this.#downloadMemory(name)),
      ], "Download"),
      menu("More", "more", [
        when("Copy a link to this moment", "link", () => this.#copyLink()),
        when("Watch a part, or at another rate…", "again", () => this.#watchPart()),
        when("Remove this video…", "trash", () => this.#remove(), true),
      ]),
    ];
  }

  // Where the video comes from

  #beginWithUpload() {
    this.localAddress = URL.createObjectURL(this.upload.file);
    this.player.load(this.localAddress); // it plays at once, from this device
    const follow = () => {
      if (this.upload.state === "sent") {
        this.upload.removeEventListener("change", follow);
        this.#beginWithId(this.upload.memoryId);
        return;
      }
      this.#show(uploadWords(this.upload));
    };
    this.upload.addEventListener("change", follow);
    follow();
  }

  async #beginWithId(id) {
    try {
      this.#beginWithMemory(await api.memory(id, this.ending.signal));
      this.app.replaceAddress(`#/${id}`);
    } catch (error) {
      if (error.name !== "AbortError") this.app.fail(error);
    }
  }

  async #beginWithMemory(memory) {
    this.memory = { ...memory, state: null }; // #setMemory below says what it is
    this.asking.setMemory(memory.id);
    this.subtitles.setMemory(memory.id);
    this.player.setMemory(memory.id);
    if (!this.localAddress && memory.content_url) this.player.load(api.address(memory.content_url));
    this.#setMemory(memory);
    if (["ready", "failed", "cancelled"].includes(memory.state)) return;
    try {
      for await (const state of api.followMemory(memory.id, this.ending.signal)) this.#setMemory(state);
    } catch (error) {
      if (error.name !== "AbortError") this.app.fail(error);
    }
  }

  #setMemory(memory) {
    const wasReady = this.memory?.state === "ready";
    this.memory = memory;
    if (memory.duration_seconds) this.player.setLength((memory.start_seconds ?? 0) + memory.duration_seconds);
    this.timeline.setPart(memory.start_seconds ?? 0, memory.end_seconds, memory.gaps ?? []);
    this.asking.setReady(memory.state === "ready");
    this.#show(memoryWords(memory));
    if (memory.state === "ready" && !wasReady) this.#loadStrip();
  }

  #show(words) {
    const isBusy = words.kind === "busy";
    this.status.show(words);
    this.element.dataset.kind = words.kind;
    this.timeline.setWatched(words.kind === "ready" ? null : isBusy && this.memory ? (words.share ?? 0) : 0);
    this.conversation.setEnabled(isBusy || words.kind === "ready");
    this.element.classList.toggle("blank", words.kind === "failed" && !this.player.length);
  }

  async #loadStrip() {
    try {
      this.timeline.setFilmstrip(await loadSheet(this.memory.id, this.ending.signal));
    } catch {
      // Only a help; the timeline works without pictures.
    }
  }

  // Moments

  #showMoments(turn) {
    const isSame = this.shown?.id === turn?.id && this.drawnEvidence === turn?.evidence;
    this.shown = turn;
    this.drawnEvidence = turn?.evidence;
    if (isSame) return;
    const others = this.asking.turns.filter((other) => other !== turn).flatMap((other) => other.evidence);
    this.timeline.setMoments(turn?.evidence ?? [], others);
    this.controls.setMoments(Boolean(turn?.evidence.length));
    this.cards.show(this.memory?.id, turn);
  }

  seekTo(span) {
    if (span) this.player.seek(span.start_seconds);
  }

  /** To the next moment of the answer in the order of time, or to the one before. */
  goToMoment(step) {
    const starts = (this.shown?.evidence ?? []).map((span) => span.start_seconds).sort((a, b) => a - b);
    const { time } = this.player;
    const target = step > 0 ? starts.find((start) => start > time + 0.25) : starts.findLast((start) => start < time - 1.5);
    if (target !== undefined) this.player.seek(target);
  }

  // What can be done with the video

  async #stopWatching() {
    if (this.memory) await api.cancelWatch(this.memory.id).catch((error) => toast(error.message));
    else this.upload.stop();
  }

  async #again() {
    if (this.memory) await this.#watchAgain({});
    else this.app.addFiles([this.upload.file]);
  }

  async #watchAgain(part) {
    const { file_id, media_path, url, fps, start_seconds, end_seconds } = this.memory;
    const source = file_id ? { file_id } : media_path ? { media_path } : { url };
    const same = { fps, start_seconds, ...(end_seconds === null ? {} : { end_seconds }) };
    try {
      const next = await api.watch({ ...source, ...(Object.keys(part).length ? part : same) });
      if (next.id === this.memory.id) this.#beginWithMemory(next);
      else this.app.go(`#/${next.id}`);
    } catch (error) {
      toast(error.message);
    }
  }

  async #watchPart() {
    if (!this.memory) return toast("The video is still being sent.");
    const part = await askForPart();
    if (part) await this.#watchAgain(part);
  }

  async #remove() {
    if (!this.memory) {
      uploads.remove(this.upload);
      this.app.go("#/");
      return;
    }
    const removed = await this.app.removeMemory(this.memory);
    if (removed) this.app.go("#/");
  }

  #copyLink() {
    const link = new URL(`#/${this.memory?.id ?? ""}?t=${Math.floor(this.player.time)}`, document.baseURI).href;
    navigator.clipboard.writeText(link).then(() => toast("The link is copied.")).catch(() => toast(link));
  }

  async #downloadMemory(name) {
    if (this.memory?.state !== "ready") return toast("The memory is there when the video has been watched.");
    try {
      save(`${name}.memory.safetensors`, await (await api.downloadMemory(this.memory.id)).blob());
    } catch (error) {
      toast(error.message);
    }
  }

  close() {
    this.ending.abort();
    if (this.asking.turns.some(isRunning)) this.asking.stopAll();
    this.player.close();
    this.cards.close();
    if (this.localAddress) URL.revokeObjectURL(this.localAddress);
  }
}

/** Remove a memory after a yes, and its file if it was uploaded and nothing else needs it; true if it is gone. */
export async function removeMemory(memory) {
  try {
    const others = (await api.memories()).filter(({ id, file_id }) => id !== memory.id && file_id === memory.file_id);
    const hasOwnFile = Boolean(memory.file_id) && !others.length;
    const file = hasOwnFile ? `“${memory.name}” and its memory` : "the memory";
    const stays = hasOwnFile ? "This cannot be undone." : `The file “${memory.name}” stays on the server.`;
    const text = `The server deletes ${file}; this browser forgets the questions about it. ${stays}`;
    if (!(await confirm("Remove this video?", text, "Remove"))) return false;
    await api.remove(memory, hasOwnFile);
    forget(memory.id);
    return true;
  } catch (error) {
    toast(error.message);
    return false;
  }
}
