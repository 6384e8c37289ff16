// What several scenarios do.

import assert from "node:assert/strict";

/** Open the page and add a video from this device; returns once it is being looked at. */
export async function addVideo(page, url, file) {
  await page.goto(url);
  await page.locator("#video-file").setInputFiles(file);
  await page.locator(".watch").waitFor();
}

/** Wait until the line on the state of the video says this. */
export const says = (page, text) => page.locator(".status").getByText(text).waitFor();

export const isWatched = (page) => page.locator('.status[data-kind="ready"]').waitFor();

/** Ask with the keyboard, and wait until `number` answers are there in all. */
export async function ask(page, text, number = 1) {
  await page.locator("#question").fill(text);
  await page.locator("#question").press("Enter");
  await answers(page, number);
}

export const answers = (page, number, state = "done") =>
  page.waitForFunction(([n, s]) => document.querySelectorAll(`.turn[data-state="${s}"]`).length === n, [number, state]);

export const time = (page) => page.evaluate(() => document.querySelector("video").currentTime);

/** Wait until the player stands at a second. */
export async function standsAt(page, seconds) {
  await page.waitForFunction((at) => Math.abs(document.querySelector("video").currentTime - at) < 0.01, seconds);
  assert.equal(Math.round(await time(page)), Math.round(seconds));
}

/** What a click downloads, as text. */
export async function downloaded(page, click) {
  const [download] = await Promise.all([page.waitForEvent("download"), click()]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  return { name: download.suggestedFilename(), text: Buffer.concat(chunks).toString("utf8") };
}

/** Nothing is wider than the window. */
export async function fitsInWidth(page, where) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(content <= window, `${where}: ${content} px in a window of ${window} px`);
}
