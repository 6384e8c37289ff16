// The conversation about one memory: its turns, which of them run, and what came back.

import * as api from "./api.js";
import { saveTurns, turnsOf } from "./saved.js";

const MOST_AT_ONCE = 3; // a browser opens six connections to a server; the player and the pictures need some
const RUNNING = new Set(["waiting", "watching", "writing"]);

export const isRunning = (turn) => RUNNING.has(turn.state);

/**
 * A turn is plain data: {id, kind: ask | choose | find, question, options, state: waiting | watching | writing | done |
 * stopped | failed, text, evidence, probabilities, error, firstTokenSeconds, totalSeconds, askedAt, subtitles, isHeld:
 * whether it waits for the video}.
 * Events: "turn" (detail: the turn that changed), "list" (turns came or went).
 */
export class Asking extends EventTarget {
  constructor(model) {
    super();
    this.model = model;
    this.turns = [];
    this.memoryId = null;
    this.isReady = false;
    this.stops = new Map(); // AbortController by turn id
    this.queue = [];
  }

  /** From now on about this memory; what was said about it before comes back. */
  setMemory(memoryId) {
    if (this.memoryId === memoryId) return;
    this.memoryId = memoryId;
    const before = turnsOf(memoryId);
    for (const turn of before.filter(isRunning)) turn.state = "stopped";
    this.turns = [...before, ...this.turns];
    this.#listChanged();
  }

  /** Questions wait until the memory is ready. */
  setReady(isReady) {
    this.isReady = isReady;
    for (const turn of isReady ? this.queue : []) this.#set(turn, { isHeld: false });
    this.#startNext();
  }

  get running() {
    return this.turns.filter(isRunning);
  }

  add(kind, question, { options = [], subtitles = null, useEarlier = false } = {}) {
    const turn = {
      id: `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`,
      kind, question, options, state: "waiting", text: "", evidence: [], probabilities: [], error: null,
      firstTokenSeconds: null, totalSeconds: null, askedAt: Date.now() / 1000, subtitles, useEarlier, isHeld: !this.isReady,
    };
    this.turns.push(turn);
    this.#listChanged();
    this.#enqueue(turn);
    return turn;
  }

  /** Ask the same again; the old answer goes. */
  again(turn) {
    Object.assign(turn, { state: "waiting", text: "", evidence: [], probabilities: [], error: null, askedAt: Date.now() / 1000 });
    this.#changed(turn);
    this.#enqueue(turn);
  }

  stop(turn) {
    this.queue = this.queue.filter((other) => other !== turn);
    if (this.stops.has(turn.id)) this.stops.get(turn.id).abort();
    else if (isRunning(turn)) this.#set(turn, { state: "stopped" });
  }

  stopAll() {
    for (const turn of this.running) this.stop(turn);
  }

  remove(turn) {
    this.stop(turn);
    this.turns = this.turns.filter((other) => other !== turn);
    this.#listChanged();
  }

  clear() {
    this.stopAll();
    this.turns = [];
    this.#listChanged();
  }

  /** Turns that were removed come back. */
  restore(turns) {
    this.turns = [...turns, ...this.turns.filter((turn) => !turns.includes(turn))];
    this.#listChanged();
  }

  #enqueue(turn) {
    this.queue.push(turn);
    this.#startNext();
  }

  #startNext() {
    while (this.isReady && this.queue.length && this.stops.size < MOST_AT_ONCE) this.#run(this.queue.shift());
  }

  async #run(turn) {
    const stop = new AbortController();
    this.stops.set(turn.id, stop);
    try {
      await { ask: this.#ask, choose: this.#choose, find: this.#find }[turn.kind].call(this, turn, stop.signal);
      this.#set(turn, { state: "done" });
    } catch (error) {
      if (error.name === "AbortError" || stop.signal.aborted) this.#set(turn, { state: "stopped" });
      else this.#set(turn, { state: "failed", error: { message: error.message, code: error.code ?? null } });
    } finally {
      this.stops.delete(turn.id);
      this.#startNext();
    }
  }

  async #ask(turn, signal) {
    this.#set(turn, { state: "writing" });
    const request = {
      model: this.model, memoryId: this.memoryId, question: turn.question,
      history: turn.useEarlier ? this.#earlier(turn) : [],
      extras: turn.subtitles ? { subtitles: turn.subtitles.fileId } : {},
    };
    for await (const { text, memory, evidence, ...end } of api.ask(request, signal)) {
      if (memory) this.#set(turn, { state: "watching", progress: memory });
      else if (text !== undefined) this.#set(turn, { state: "writing", text: turn.text + text });
      else this.#set(turn, { evidence, ...end });
    }
  }

  #earlier(turn) {
    return this.turns
      .slice(0, this.turns.indexOf(turn))
      .filter((other) => other.kind === "ask" && other.state === "done")
      .map((other) => [other.question, other.text]);
  }

  async #choose(turn, signal) {
    this.#set(turn, { state: "writing" });
    const extras = turn.subtitles ? { subtitles: turn.subtitles.fileId } : {};
    const json = { question: turn.question, options: turn.options, ...extras };
    const { option, probabilities, evidence } = await api.choose(this.memoryId, json, signal);
    this.#set(turn, { text: option, probabilities, evidence: evidence ?? [] });
  }

  async #find(turn, signal) {
    this.#set(turn, { state: "writing" });
    const evidence = await api.find(this.memoryId, { text: turn.question, limit: 5 }, signal);
    this.#set(turn, { evidence });
  }

  #set(turn, changes) {
    Object.assign(turn, changes);
    this.#changed(turn);
  }

  #changed(turn) {
    if (!isRunning(turn)) this.#save();
    this.dispatchEvent(new CustomEvent("turn", { detail: turn }));
  }

  #listChanged() {
    this.#save();
    this.dispatchEvent(new Event("list"));
  }

  #save() {
    if (this.memoryId) saveTurns(this.memoryId, this.turns);
  }
}
