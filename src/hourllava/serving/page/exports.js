// Answers as files: JSON for programs, CSV for tables, SRT for players and editors.

import { percent } from "./format.js";

const two = (number) => String(number).padStart(2, "0");

/** 425 -> "0:07:05", as the rest of hourllava writes times. */
export function longClock(seconds) {
  const whole = Math.floor(seconds + 1e-6);
  return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`;
}

const done = (turns) => turns.filter((turn) => turn.state === "done" || (turn.state === "stopped" && turn.text));

/** Every answer with exact numbers. */
export function asJson(video, turns) {
  const answers = done(turns).map((turn) => ({
    kind: turn.kind,
    question: turn.question,
    ...(turn.kind === "choose" ? { options: turn.options, probabilities: turn.probabilities, option: turn.text } : {}),
    ...(turn.kind === "ask" ? { answer: turn.text } : {}),
    evidence: turn.evidence,
    is_whole: turn.state === "done" && turn.finish !== "length",
    asked_at: new Date(turn.askedAt * 1000).toISOString(),
  }));
  return `${JSON.stringify({ video, answers }, null, 2)}\n`;
}

/** A cell of CSV. A spreadsheet would run a text that begins like a formula, so such a text gets an apostrophe. */
export function cell(value) {
  const text = String(value);
  const guarded = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

/** One line for each answer; its moments in one cell, the strongest also as numbers. */
export function asCsv(video, turns) {
  const head = ["video", "kind", "question", "answer", "moments", "first_start_seconds", "first_end_seconds", "first_weight"];
  const rows = done(turns).map((turn) => {
    const [first] = turn.evidence;
    const moments = turn.evidence.map((span) => `${longClock(span.start_seconds)}-${longClock(span.end_seconds)} (${percent(span.weight)})`);
    return [
      video.name, turn.kind, turn.question, turn.text, moments.join("; "),
      first?.start_seconds ?? "", first?.end_seconds ?? "", first?.weight ?? "",
    ];
  });
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function srtTime(seconds) {
  const ms = Math.round(seconds * 1000);
  return `${two(Math.floor(ms / 3600000))}:${two(Math.floor(ms / 60000) % 60)}:${two(Math.floor(ms / 1000) % 60)},${String(ms % 1000).padStart(3, "0")}`;
}

/** The moments as subtitles: each shows the question and the answer whose moment it is. */
export function asSrt(turns) {
  const oneLine = (text) => text.replace(/\s+/g, " ").replaceAll("-->", "->").trim();
  const cues = done(turns)
    .flatMap((turn) => turn.evidence.map((span) => ({ span, turn })))
    .sort((a, b) => a.span.start_seconds - b.span.start_seconds);
  return cues
    .map(({ span, turn }, index) => {
      const end = Math.max(span.end_seconds, span.start_seconds + 0.5);
      const lines = [`${oneLine(turn.question)} (${percent(span.weight)})`, oneLine(turn.text)].filter(Boolean);
      return `${index + 1}\n${srtTime(span.start_seconds)} --> ${srtTime(end)}\n${lines.join("\n")}\n`;
    })
    .join("\n");
}

/** Let the browser save a text or blob as a file. */
export function save(name, content, type = "text/plain") {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
