// The real server with nano, and a new video of MarathonWorld: its card is found, and the player stands at it.

import assert from "node:assert/strict";
import { addVideo, ask, isWatched, time } from "../steps.mjs";

export default async function ({ page, url, video, question, answer, start, end }) {
  page.setDefaultTimeout(120000);
  await addVideo(page, url, video);
  await isWatched(page);
  await ask(page, question);
  assert.equal(await page.locator(".answer").innerText(), answer);
  await page.locator(".chip").first().click();
  await page.waitForFunction(() => document.querySelector("video").currentTime > 0);
  const at = await time(page);
  assert.ok(at >= start - 1 && at <= end, `${at} s; the card is shown from ${start} to ${end} s`);
}
