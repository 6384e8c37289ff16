// Subtitles of the video: chosen, sent to the server, shown over the picture, and read by the model.

import * as api from "./api.js";
import { button, fill, h, icon, toast } from "./dom.js";
import { saveSubtitles, subtitlesOf } from "./saved.js";

const LARGEST_BYTES = 8_000_000; // subtitles of a day take two

/** A control to choose subtitles. `onShow(text | null, name)` gets WebVTT to be shown. */
export function subtitleControl(onShow) {
  let memoryId = null;
  let current = null; // {fileId, name}
  const input = h("input", { type: "file", accept: ".srt,.vtt,text/vtt", class: "unseen", tabindex: "-1", "aria-label": "Subtitle file", on: { change: chosen } });
  const place = h("span", { class: "subtitles" });

  function draw(state = "") {
    if (state) fill(place, input, h("span", { class: "tag" }, state));
    else if (current) {
      fill(
        place, input,
        h("span", { class: "tag", title: "Shown over the picture, and read by the model" }, icon("captions"), h("span", { class: "tag-name" }, current.name)),
        button({ label: "Remove the subtitles", iconName: "close", kind: "icon-only small", on: () => set(null) }),
      );
    } else {
      fill(place, input, button({ text: "Subtitles", iconName: "captions", kind: "plain small", title: "Add subtitles (.srt or .vtt): they are shown, and the model reads them", on: () => input.click() }));
    }
  }

  async function chosen() {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    if (!/\.(srt|vtt)$/i.test(file.name)) return toast("Subtitles are files that end in .srt or .vtt.");
    if (file.size > LARGEST_BYTES) return toast("This file is too large to be subtitles.");
    draw("Reading…");
    try {
      const { id } = await api.uploadSmall(file);
      await set({ fileId: id, name: file.name });
    } catch (error) {
      toast(`${file.name}: ${error.message}`);
      draw();
    }
  }

  /** Use these subtitles: show them, and keep them for this memory. */
  async function set(subtitles) {
    if (subtitles) onShow(await api.subtitlesText(subtitles.fileId), subtitles.name);
    else onShow(null, "");
    current = subtitles;
    if (memoryId) saveSubtitles(memoryId, subtitles);
    draw();
  }

  draw();
  return {
    element: place,
    current: () => current,
    setMemory(id) {
      if (id === memoryId) return;
      memoryId = id;
      if (current) saveSubtitles(id, current);
      else if (subtitlesOf(id)) set(subtitlesOf(id)).catch(() => saveSubtitles(id, null)); // the file is gone
    },
  };
}
