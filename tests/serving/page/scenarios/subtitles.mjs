// Subtitles are sent, shown over the picture, sent with questions, and there again after a reload.

import assert from "node:assert/strict";
import { addVideo, answers, ask, isWatched } from "../steps.mjs";

const cues = (page) => page.waitForFunction(() => document.querySelector("track")?.track.cues?.length === 2);

export default async function ({ page, url, video, subtitles }) {
  await addVideo(page, url, video);
  await isWatched(page);
  await page.getByLabel("Subtitle file").setInputFiles(subtitles);
  await page.locator(".tag-name").waitFor();
  await cues(page);
  assert.equal(await page.evaluate(() => document.querySelector("track").track.mode), "showing");
  await page.getByRole("button", { name: "Captions (C)" }).click();
  assert.equal(await page.evaluate(() => document.querySelector("track").track.mode), "hidden");
  await ask(page, "What is said?");
  assert.match(await page.locator(".facts").innerText(), /with speech\.srt/);
  await page.reload();
  await answers(page, 1);
  await cues(page);
  await page.getByRole("button", { name: "Remove the subtitles" }).click();
  assert.equal(await page.locator("track").count(), 0);
  await ask(page, "What is said now?", 2);
}
