// Starts the page: asks the server for its settings, shows the view that the address names, and what stands above it.

import * as api from "./api.js";
import { askForKey, showKeys } from "./dialogs.js";
import { button, fill, h, icon } from "./dom.js";
import { HomeView } from "./home.js";
import { key } from "./saved.js";
import { uploads } from "./uploads.js";
import { removeMemory, WatchView } from "./watch.js";

const main = document.getElementById("main");
const top = document.getElementById("top");
let view = null;
let routes = 0; // how often a view was begun: a slow answer of an earlier one is dropped

/** What views need of the page. */
const app = {
  settings: {},
  note: null,
  removeMemory,
  go(address) {
    if (window.location.hash === address) show();
    else window.location.hash = address;
  },
  replaceAddress(address) {
    window.history.replaceState(null, "", address);
  },
  /** Begin to send videos: a single one is looked at meanwhile. */
  addFiles(files) {
    const [only, ...others] = uploads.add(files, app.settings.max_upload_bytes);
    if (only && !others.length) open(new WatchView(app, { upload: only }), "#/upload");
    else app.go("#/");
  },
  async fail(error) {
    if (error.status === 401) {
      const given = await askForKey(Boolean(key.value));
      if (!given) return showProblem("This server needs a key", "Without it nothing can be shown.", "Enter the key", () => app.fail(error));
      key.set(given.key, given.isKept);
      return start();
    }
    if (error.status === 404) return showProblem("This video is not here", "It was removed, or it belongs to another key.", "All videos", () => app.go("#/"));
    return showProblem("That did not work", error.message, "Try again", start);
  },
};

function drawTop() {
  const mark = h("a", { class: "brand", href: "#/", "aria-label": "hourllava: all videos" }, h("span", { class: "brand-mark", "aria-hidden": "true" }, h("i", {}), h("i", {}), h("i", {})), h("span", { class: "brand-name" }, "hourllava"));
  const title = view?.name ? h("h1", { class: "crumb", title: view.name }, view.name) : null;
  document.title = view?.name ? `${view.name} – hourllava` : "hourllava";
  fill(
    top, mark, title, h("span", { class: "gap" }),
    app.settings.model ? h("span", { class: "model", title: "The model that watches and answers" }, app.settings.model) : null,
    ...(view?.tools?.() ?? []),
    button({ label: "Keys (?)", iconName: "keyboard", kind: "icon-only keys-button", on: showKeys }),
  );
}

function open(next, address = null) {
  routes += 1;
  view?.close?.();
  view = next;
  if (address) window.history.pushState(null, "", address);
  fill(main, view.element);
  drawTop();
  window.scrollTo(0, 0);
}

function showProblem(title, text, action, on) {
  open({
    name: "",
    element: h("div", { class: "problem-page" }, icon("warning"), h("h1", {}, title), h("p", { class: "quiet" }, text), button({ text: action, kind: "primary", on })),
  });
}

/** Show what the address names: `#/` or `#/mem-...?t=12`. */
async function show() {
  const [, id, query] = /^#\/(mem-[\w-]+)(?:\?(.*))?$/.exec(window.location.hash) ?? [];
  const startSeconds = Number.parseFloat(new URLSearchParams(query).get("t")) || 0;
  if (!id) return open(new HomeView(app));
  if (view instanceof WatchView && view.memory?.id === id) return startSeconds ? view.player.seek(startSeconds) : undefined;
  routes += 1;
  const route = routes;
  try {
    const memory = await api.memory(id);
    if (route === routes) open(new WatchView(app, { memory, startSeconds }));
  } catch (error) {
    if (route === routes) app.fail(error);
  }
}

/** Files may be dropped anywhere. */
function listenToDrops() {
  const veil = h("div", { class: "veil", hidden: true }, h("p", {}, "Drop to watch"));
  document.body.append(veil);
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const on = (name, listener) => window.addEventListener(name, (event) => { if (hasFiles(event)) { event.preventDefault(); listener(event); } });
  on("dragenter", () => { depth += 1; veil.hidden = false; });
  on("dragover", () => {});
  on("dragleave", () => { depth -= 1; veil.hidden = depth > 0 ? false : true; });
  on("drop", (event) => {
    depth = 0;
    veil.hidden = true;
    if (event.dataTransfer.files.length) app.addFiles(event.dataTransfer.files);
  });
}

function noteOf(model) {
  return /nano/i.test(model ?? "") ? "This server runs nano, a small model that has seen only drawn videos (MarathonWorld). Its answers about real videos mean nothing." : null;
}

async function start() {
  try {
    app.settings = await api.settings();
  } catch (error) {
    return app.fail(error);
  }
  app.note = noteOf(app.settings.model);
  return show();
}

window.addEventListener("hashchange", show);
listenToDrops();
start();
