// A server with keys: the page asks for one, says when it is wrong, and then shows videos and pictures.

import assert from "node:assert/strict";
import { ask, isWatched } from "../steps.mjs";

export const expected = [/status of 401/];

export default async function ({ page, url, video, key }) {
  await page.goto(url);
  const dialog = page.getByRole("dialog", { name: "This server needs a key" });
  await dialog.getByLabel("Key", { exact: true }).fill("a-key-that-is-wrong");
  await dialog.getByRole("button", { name: "Continue" }).click();
  await page.getByText("The server did not accept this key.").waitFor();
  await dialog.getByLabel("Key", { exact: true }).fill(key);
  await dialog.getByRole("button", { name: "Continue" }).click();
  await page.locator("#video-file").setInputFiles(video);
  await isWatched(page);
  await page.reload(); // now the video comes from the server, by a signed address
  await page.waitForFunction(() => document.querySelector("video")?.videoWidth > 0);
  await ask(page, "Which car?");
  await page.waitForFunction(() => [...document.querySelectorAll(".card img")].every((image) => image.naturalWidth > 0));
  const addresses = await page.evaluate(() => performance.getEntriesByType("resource").map((entry) => entry.name));
  assert.ok(addresses.every((address) => !address.includes(key)), "the key stands in an address");
}
