// The modules that need no browser: reading events, writing files, times.

import assert from "node:assert/strict";
import { test } from "node:test";

const PAGE = new URL("../../../src/hourllava/serving/page/", import.meta.url);
globalThis.window = { addEventListener() {} };
const { splitEvents } = await import(new URL("events.js", PAGE));
const { asCsv, asSrt, cell } = await import(new URL("exports.js", PAGE));
const { bytes, clock, duration, percent, range, rulerStep } = await import(new URL("format.js", PAGE));
const { secondsOf } = await import(new URL("dialogs.js", PAGE));
const { choicesOf } = await import(new URL("composer.js", PAGE));

test("events are the same wherever the text is cut, with any ends of lines", () => {
  const parts = [": ping", 'data: {"a": 1}', "id: 3\ndata: one\ndata: two", "event: x", "data:[DONE]"];
  const wanted = ['{"a": 1}', "one\ntwo", "[DONE]"];
  for (const end of ["\n", "\r\n", "\r"]) {
    const text = parts.map((part) => part.replaceAll("\n", end) + end + end).join("");
    for (let size = 1; size <= text.length; size += 1) {
      let buffer = "";
      const found = [];
      for (let at = 0; at < text.length; at += size) {
        const { events, rest } = splitEvents(buffer + text.slice(at, at + size));
        found.push(...events);
        buffer = rest;
      }
      found.push(...splitEvents(`${buffer}\n`).events); // the last end may be half of one
      assert.deepEqual(found, wanted, `${JSON.stringify(end)}, ${size} at a time`);
    }
  }
});

test("no cell begins like a formula, and cells come back as they were", () => {
  for (const text of ["=1+1", "+1", "-1", "@x", "\tx", "\rx"]) assert.match(cell(text), /^"?'/);
  assert.equal(cell(-1.5), "-1.5");
  assert.equal(cell('a "b", c'), '"a ""b"", c"');
  assert.equal(cell("two\nlines"), '"two\nlines"');
});

const turn = (changes) => ({ kind: "ask", state: "done", question: "Who?", text: "Nobody.", evidence: [], askedAt: 0, ...changes });

test("answers that are not there are in no file", () => {
  const turns = [turn(), turn({ state: "failed" }), turn({ state: "stopped", text: "" }), turn({ state: "writing" })];
  assert.equal(asCsv({ name: "v" }, turns).trim().split("\r\n").length, 2);
});

test("subtitles of moments are in the order of time, and never empty in length", () => {
  const evidence = [{ start_seconds: 3599.9996, end_seconds: 3599.9996, weight: 0.5 }, { start_seconds: 1, end_seconds: 2, weight: 0.004 }];
  assert.equal(
    asSrt([turn({ evidence, text: "a --> b\n\nc" })]),
    "1\n00:00:01,000 --> 00:00:02,000\nWho? (< 1 %)\na -> b c\n\n2\n01:00:00,000 --> 01:00:00,500\nWho? (50 %)\na -> b c\n",
  );
});

test("times, sizes and shares", () => {
  assert.deepEqual([0, 59.9999999, 425, 3725, NaN].map((each) => clock(each)), ["0:00", "1:00", "7:05", "1:02:05", "–:––"]);
  assert.equal(range({ start_seconds: 420, end_seconds: 440 }), "7:00–7:20");
  assert.equal(range({ start_seconds: 420.2, end_seconds: 420.9 }), "7:00");
  assert.deepEqual([0, 0.001, 0.413, 1].map(percent), ["0 %", "< 1 %", "41 %", "100 %"]);
  assert.deepEqual([0.2, 59, 60, 4800, 7200].map(duration), ["1 s", "59 s", "1 min", "1 h 20 min", "2 h"]);
  assert.deepEqual([0, 999, 1500, 36e6, 4294967296].map(bytes), ["0 bytes", "999 bytes", "1.5 kB", "36 MB", "4.3 GB"]);
  for (const length of [1, 59, 3600, 86400, 1e7]) assert.ok(length / rulerStep(length, 8) <= 8);
});

test("times that people write", () => {
  assert.deepEqual(["", "125", "2:05", "1:02:05", "0.5"].map(secondsOf), [null, 125, 125, 3725, 0.5]);
  for (const text of ["x", "1:2:3:4", "-1", "1:", "1e3"]) assert.ok(Number.isNaN(secondsOf(text)), text);
});

test("choices lose their letters", () => {
  assert.deepEqual(choicesOf("A. red\n (b) blue\n\nC) a. b\ngrey"), ["red", "blue", "a. b", "grey"]);
});
