// A video that this browser cannot play is shown as pictures from the server, on the same timeline.

import assert from "node:assert/strict";
import { addVideo, ask, isWatched } from "../steps.mjs";

const source = (page) => page.locator(".still").getAttribute("src");
const isOther = (page, old) => page.waitForFunction((before) => document.querySelector(".still").src !== before && document.querySelector(".still").complete, old);

export default async function ({ page, url, unplayable }) {
  await addVideo(page, url, unplayable);
  await isWatched(page);
  await page.waitForFunction(() => document.querySelector(".still").naturalWidth > 0);
  assert.equal(await page.locator("video").isVisible(), false);
  await page.getByText("Pictures only: this browser cannot play the file").waitFor();
  await page.locator(".strip.filled").waitFor();
  await ask(page, "Which car?");
  const before = await source(page);
  await page.locator(".chip").first().click();
  await isOther(page, before);
  assert.equal(await page.locator(".times .now").innerText(), "7:00");
  assert.equal(await page.locator(".still").getAttribute("alt"), "The video at 7:00");
  await page.getByRole("button", { name: "Play (K)" }).click();
  await page.waitForFunction(() => document.querySelector(".times .now").textContent !== "7:00");
  await page.getByRole("button", { name: "Pause (K)" }).click();
}
