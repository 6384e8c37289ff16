// Choosing a video that is not on this device: of the server's folder, or at an address.

import * as api from "./api.js";
import { button, fill, h, icon } from "./dom.js";
import { openDialog } from "./dialogs.js";
import { ago, bytes } from "./format.js";

const MOST_SHOWN = 300;

/** A video of the server's folder: its path, or null. */
export function pickMedia() {
  return openDialog("Videos in the server's folder", (close) => {
    const filter = h("input", { type: "search", placeholder: "Part of a name", "aria-label": "Part of a name", "data-first": true });
    const list = h("ul", { class: "files", "aria-label": "Videos" });
    const note = h("p", { class: "quiet", role: "status" }, "Reading the folder…");
    let files = [];
    const draw = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = files.filter(({ path }) => words.every((word) => path.toLowerCase().includes(word)));
      fill(list, ...found.slice(0, MOST_SHOWN).map((file) => h("li", {}, row(file, close))));
      note.textContent = found.length > MOST_SHOWN ? `The first ${MOST_SHOWN} of ${found.length}. Write part of a name to find others.`
        : found.length ? "" : files.length ? "No video has such a name." : "There is no video in this folder.";
      note.hidden = !note.textContent;
    };
    filter.addEventListener("input", draw);
    api.mediaFiles().then((all) => {
      files = all.filter((file) => file.kind === "video");
      draw();
    }).catch((error) => { note.textContent = error.message; });
    return [filter, list, note];
  });
}

function row(file, close) {
  const cut = file.path.lastIndexOf("/") + 1;
  return h(
    "button", { type: "button", class: "file", on: { click: () => close(file.path) } },
    icon("film"),
    h("span", { class: "file-name" }, h("span", { class: "quiet" }, file.path.slice(0, cut)), file.path.slice(cut)),
    h("span", { class: "quiet" }, `${bytes(file.bytes)} · ${ago(file.modified_at)}`),
  );
}

/** The address of a video, or null. */
export function pickAddress() {
  return openDialog("A video at an address", (close) => {
    const field = h("input", { type: "url", id: "address", placeholder: "https://", required: true, "data-first": true });
    return [
      h(
        "form", { class: "stack", on: { submit: (event) => { event.preventDefault(); close(field.value.trim()); } } },
        h("label", { for: "address" }, "Address"), field,
        h("p", { class: "quiet" }, "The server downloads the file itself. The address must lead to a video file, not to a page that shows one."),
        h("div", { class: "dialog-foot" }, button({ text: "Cancel", on: () => close() }), h("button", { type: "submit", class: "button primary" }, "Watch")),
      ),
    ];
  }, "narrow");
}
