// Watching is cancelled and begun again; an answer is stopped.

import assert from "node:assert/strict";
import { addVideo, answers, says } from "../steps.mjs";

export default async function ({ page, url, video }) {
  await addVideo(page, url, video);
  await says(page, /\d+ of 500 frames/);
  await page.getByRole("button", { name: "Cancel" }).click();
  await says(page, /^Stopped/);
  assert.equal(await page.locator(".composer").isVisible(), false);
  await page.getByRole("button", { name: "Try again" }).click();
  await says(page, /\d+ of 500 frames/);
  for (const question of ["One?", "Two?"]) {
    await page.locator("#question").fill(question);
    await page.locator("#question").press("Enter");
  }
  await page.locator(".turn").last().getByRole("button", { name: "Stop" }).click();
  await answers(page, 1, "stopped");
  await page.locator('.turn[data-state="writing"] .answer p:not(.quiet)').waitFor();
  await page.keyboard.press("Escape"); // leaves the field
  await page.keyboard.press("Escape"); // stops
  await answers(page, 2, "stopped");
  assert.match(await page.locator(".answer").first().innerText(), /^A red/);
  await page.locator(".turn").first().hover();
  await page.locator(".turn").first().getByRole("button", { name: "Ask again" }).click();
  await answers(page, 1, "writing");
}
