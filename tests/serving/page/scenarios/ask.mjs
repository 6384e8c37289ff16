// A video is sent and watched; an answer is written; a click on a moment moves the player to its second.

import assert from "node:assert/strict";
import { addVideo, answers, isWatched, says, standsAt } from "../steps.mjs";

export default async function ({ page, url, video }) {
  await addVideo(page, url, video);
  await page.getByRole("progressbar").waitFor();
  await says(page, /^Watching/);
  await says(page, /\d+ of 500 frames/);
  await page.locator("#question").fill("Which car is it?"); // questions may be asked meanwhile
  await page.locator("#question").press("Enter");
  await page.getByText("Asked when the video has been watched").waitFor();
  await isWatched(page);
  await page.locator('.turn[data-state="writing"] .answer p:not(.quiet)').waitFor();
  await answers(page, 1);
  assert.equal(await page.locator(".turn .answer").innerText(), "A red car.");

  const moments = page.getByRole("group", { name: "Moments" }).getByRole("button");
  assert.deepEqual(
    await moments.evaluateAll((all) => all.map((each) => each.getAttribute("aria-label"))),
    ["Moment 2: 0:05 to 0:09, 20 %", "Moment 1: 7:00 to 7:20, 40 %"],
  );
  await moments.last().click();
  await standsAt(page, 420);
  await page.locator(".chip").last().click();
  await standsAt(page, 5);
  await page.locator(".card").first().click();
  await standsAt(page, 420);
  await page.waitForFunction(() => [...document.querySelectorAll(".card img")].every((image) => image.naturalWidth > 0));
  const { width: across, height } = await page.locator(".card img").first().boundingBox();
  assert.deepEqual([across, height], [96, 60]); // not cut: all of the picture is in it
  await page.locator(".strip.filled").waitFor();
  const [left, width] = await moments.last().evaluate((each) => [each.style.left, each.style.width]);
  assert.deepEqual([left, width], ["84%", "4%"]);

  const address = page.url();
  assert.match(address, /#\/mem-[0-9a-f]{32}$/);
  await page.reload();
  await answers(page, 1); // kept by the browser
  await page.goto(`${address}?t=77`);
  await standsAt(page, 77);
}
