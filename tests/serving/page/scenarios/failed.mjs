// A file that is no video, and a video that cannot be watched: both say why, and can be removed.

import assert from "node:assert/strict";
import { addVideo, says } from "../steps.mjs";

export const expected = [/status of 400/];

export default async function ({ page, url, video, text }) {
  await addVideo(page, url, text);
  await says(page, "The video was not accepted");
  assert.equal(await page.locator(".composer").isVisible(), false);
  await page.getByRole("button", { name: "Remove" }).click();
  await page.locator(".home").waitFor();
  assert.equal(await page.locator(".video-card").count(), 0);

  await addVideo(page, url, video);
  await says(page, "This video could not be watched");
  await says(page, "its second half is missing");
  await page.getByRole("link", { name: /all videos/ }).click();
  await page.locator('.video-card[data-kind="failed"]').getByText("its second half is missing").waitFor();
  await page.locator(".video-link").click();
  await page.getByRole("button", { name: "Try again" }).click();
  await says(page, /^Watching|^Waiting/);
  await says(page, "This video could not be watched");
  await page.getByRole("button", { name: "Remove" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await page.locator(".home:not(.filled)").waitFor();
}
