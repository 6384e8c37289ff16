// Everything with the keyboard alone: the mouse is never used.

import assert from "node:assert/strict";
import { addVideo, answers, isWatched, standsAt, time } from "../steps.mjs";

/** Press Tab until what has the focus has this label; at most 60 times. */
async function tabTo(page, label) {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press("Tab");
    const found = await page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent);
    if (label.test(found)) return;
  }
  assert.fail(`Tab never came to ${label}`);
}

export default async function ({ page, url, video }) {
  await addVideo(page, url, video); // no test can use the window in which files are chosen
  await isWatched(page);
  await page.keyboard.press("/");
  await page.keyboard.type("Which car?");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("What colour?");
  await page.keyboard.press("Enter");
  await answers(page, 2);
  await page.keyboard.press("Escape");

  await tabTo(page, /^Moment 2/);
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await standsAt(page, 420);
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Space");
  await standsAt(page, 5);
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Moment 2: 0:05 to 0:09, 20 %");

  await tabTo(page, /^Position/);
  await page.keyboard.press("PageUp");
  await standsAt(page, 65);
  await page.keyboard.press("l");
  await standsAt(page, 75);
  await page.keyboard.press("j");
  await standsAt(page, 65);
  await page.keyboard.press("n");
  await standsAt(page, 420);
  await page.keyboard.press("p");
  await standsAt(page, 5);
  await page.keyboard.press("k");
  await page.waitForFunction(() => !document.querySelector("video").paused);
  await page.keyboard.press("k");
  await page.waitForFunction(() => document.querySelector("video").paused);
  assert.ok((await time(page)) < 60);
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await page.keyboard.press("Escape");
  assert.equal(await page.getByRole("dialog").count(), 0);

  await page.evaluate(() => document.getElementById("main").focus());
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter"); // the menu of downloads
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Answers as JSON");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("details[open]").count(), 0);
}
