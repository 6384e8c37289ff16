// One line on how far a video is: being sent, waiting, watched, ready, or what went wrong.

import { announce, button, fill, h, icon } from "./dom.js";
import { bytes, count, duration, percent, plural } from "./format.js";

const left = (seconds) => (Number.isFinite(seconds) && seconds !== null ? `about ${duration(seconds)} left` : "");
const join = (...parts) => parts.filter(Boolean).join(" · ");

/** What to say about an upload: {kind, title, detail, share}. */
export function uploadWords({ state, sent, file, secondsLeft, error }) {
  if (state === "waiting") return { kind: "busy", title: "Waiting to be sent", detail: "Other videos are sent first.", share: 0 };
  if (state === "failed") return { kind: "failed", title: "The video was not accepted", detail: error.message };
  if (state === "stopped") return { kind: "stopped", title: "Stopped", detail: "The video was not sent." };
  if (sent >= file.size) return { kind: "busy", title: "Sent", detail: "The server looks at the file.", share: 1 };
  return { kind: "busy", title: "Sending the video", detail: join(`${bytes(sent)} of ${bytes(file.size)}`, left(secondsLeft)), share: sent / file.size };
}

/** What to say about a memory: {kind, title, detail, share}. */
export function memoryWords(memory) {
  const { state, frames_done: done, frames_total: total, frames_per_second: speed, error, gaps = [] } = memory;
  if (state === "queued") return { kind: "busy", title: "Waiting to be watched", detail: "Other videos are watched first.", share: 0 };
  if (state === "watching") {
    const frames = total ? `${count(done)} of ${count(total)} frames` : `${plural(done, "frame")} so far`;
    const again = memory.attempt > 1 ? "begun again after a fault" : "";
    return { kind: "busy", title: "Watching", detail: join(frames, speed ? `${count(speed)} a second` : "", left(memory.seconds_left), again), share: total ? done / total : null };
  }
  if (state === "failed") return { kind: "failed", title: "This video could not be watched", detail: error?.message ?? "The server gave no reason." };
  if (state === "cancelled") {
    return { kind: "stopped", title: "Stopped", detail: total ? `${percent(done / total)} had been watched. Nothing of it is kept.` : "Nothing of it is kept." };
  }
  const rate = memory.fps === 1 ? "one frame a second" : `${memory.fps} frames a second`;
  const damaged = gaps.length ? plural(gaps.length, "damaged part") : "";
  return { kind: "ready", title: "Watched", detail: join(done ? `${plural(done, "frame")}, ${rate}` : rate, damaged) };
}

/** A line for the view of a video. `actions`: stop(), again(), remove(). */
export function statusLine(actions) {
  const title = h("strong", {});
  const detail = h("span", { class: "status-detail" });
  const sign = h("span", { class: "sign", "aria-hidden": "true" });
  const buttons = h("span", { class: "status-buttons" });
  const fillOf = h("i", {});
  const bar = h("span", { class: "track", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 }, fillOf);
  const element = h("div", { class: "status", role: "group", "aria-label": "State of the video" }, sign, h("p", {}, title, detail), bar, buttons);
  let drawn = "";
  let said = "";

  return {
    element,
    show(words) {
      title.textContent = words.title;
      detail.textContent = words.detail;
      element.dataset.kind = words.kind;
      bar.hidden = words.share === undefined || words.share === null;
      fillOf.style.width = `${(words.share ?? 0) * 100}%`;
      bar.setAttribute("aria-valuenow", Math.round((words.share ?? 0) * 100));
      const quarter = words.share ? Math.floor(words.share * 4) * 25 : 0;
      const news = words.kind === "busy" ? `${words.title}${quarter ? `: ${quarter} %` : ""}` : `${words.title}. ${words.detail}`;
      if (news !== said) announce((said = news));
      if (drawn === words.kind) return; // buttons that are replaced lose their focus
      drawn = words.kind;
      fill(sign, words.kind === "failed" ? icon("warning") : words.kind === "ready" ? icon("check") : null);
      fill(
        buttons,
        words.kind === "busy" ? button({ text: "Cancel", kind: "small", on: actions.stop }) : null,
        ["failed", "stopped"].includes(words.kind) ? button({ text: "Try again", iconName: "again", kind: "small", on: actions.again }) : null,
        words.kind === "failed" || words.kind === "stopped" ? button({ text: "Remove", kind: "small plain", on: actions.remove }) : null,
      );
    },
  };
}
