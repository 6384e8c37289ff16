// Small pictures along the timeline, drawn from one sheet of tiles.

import * as api from "./api.js";
import { h } from "./dom.js";

/** The sheet of a memory: {image, columns, tileWidth, tileHeight, times}, times in seconds. Raises ApiError. */
export async function loadSheet(memoryId, signal) {
  const told = await api.filmstrip(memoryId);
  const address = await api.picture(told.url, signal);
  const image = new Image();
  image.src = address;
  await image.decode();
  URL.revokeObjectURL(address);
  return {
    image, columns: told.columns, tileWidth: told.tile_width, tileHeight: told.tile_height, times: told.times,
  };
}

/** A row of tiles over a length of time. */
export class Strip {
  constructor() {
    this.element = h("canvas", { class: "strip", "aria-hidden": "true" });
    this.sheet = null;
  }

  setSheet(sheet) {
    this.sheet = sheet;
    this.element.classList.toggle("filled", sheet !== null);
  }

  /** The tile whose time is nearest; null if none is near: the sheet may show a part of the video only. */
  #tile(seconds, reach = 0) {
    const { times } = this.sheet;
    const spacing = times.length > 1 ? times[1] - times[0] : Infinity;
    const distance = (index) => Math.abs(times[index] - seconds);
    let best = 0;
    for (let index = 1; index < times.length; index += 1) if (distance(index) < distance(best)) best = index;
    return distance(best) <= Math.max(spacing, reach) ? best : null;
  }

  #copy(context, tile, x, y, width, height) {
    const { image, columns, tileWidth, tileHeight } = this.sheet;
    const [column, row] = [tile % columns, Math.floor(tile / columns)];
    context.drawImage(image, column * tileWidth, row * tileHeight, tileWidth, tileHeight, x, y, width, height);
  }

  /** Draw as many tiles as fit; each shows the middle of its share of the length. */
  draw(length) {
    const canvas = this.element;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!this.sheet || !width || !height) return;
    const density = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    const context = canvas.getContext("2d");
    const natural = (height * this.sheet.tileWidth) / this.sheet.tileHeight;
    const number = Math.max(1, Math.round(width / natural));
    const step = canvas.width / number;
    for (let place = 0; place < number; place += 1) {
      const tile = this.#tile(((place + 0.5) / number) * length, length / number / 2);
      if (tile !== null) this.#copy(context, tile, place * step, 0, Math.ceil(step), canvas.height);
    }
  }

  /** Paint one tile on a canvas of this width; false if there is none. */
  paint(canvas, seconds, width) {
    const tile = this.sheet ? this.#tile(seconds) : null;
    if (tile === null) return false;
    canvas.width = width * 2;
    canvas.height = Math.round((width * 2 * this.sheet.tileHeight) / this.sheet.tileWidth);
    this.#copy(canvas.getContext("2d"), tile, 0, 0, canvas.width, canvas.height);
    return true;
  }
}
