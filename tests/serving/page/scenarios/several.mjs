// Several questions at once, multiple choice, and finding moments.

import assert from "node:assert/strict";
import { addVideo, answers, ask, isWatched } from "../steps.mjs";

export default async function ({ page, url, video }) {
  await addVideo(page, url, video);
  await isWatched(page);
  await page.locator("#question").fill("One?\n\n Two? \nThree?\nFour?");
  await page.getByText("4 questions, one a line").waitFor();
  await page.getByRole("button", { name: "Ask 4" }).click();
  await answers(page, 4);
  assert.deepEqual(await page.locator(".question").allInnerTexts(), ["One?", "Two?", "Three?", "Four?"]);
  assert.deepEqual(new Set(await page.locator(".answer").allInnerTexts()), new Set(["A red car."]));

  await page.getByRole("radio", { name: "Choose" }).check();
  await page.locator("#question").fill("What colour?");
  await page.getByLabel("Choice A").focus();
  await page.evaluate(() => navigator.clipboard.writeText("A. red\nB. green\n(c) blue\nD) grey"));
  await page.keyboard.press("Control+V");
  assert.equal(await page.getByLabel("Choice C").inputValue(), "blue");
  await page.getByRole("button", { name: "Choose", exact: true }).click();
  await answers(page, 5);
  const options = await page.locator(".option .words").allTextContents();
  assert.deepEqual(options, ["red (chosen)", "green", "blue", "grey"]);
  assert.deepEqual(await page.locator(".option .share").allInnerTexts(), ["25 %", "25 %", "25 %", "25 %"]);

  await page.getByRole("radio", { name: "Find" }).check();
  await ask(page, "a red car", 6);
  assert.equal(await page.locator(".turn").last().locator(".chip").count(), 2);

  await page.getByRole("button", { name: "Clear" }).click();
  assert.equal(await page.locator(".turn").count(), 0);
  await page.getByRole("button", { name: "Undo" }).click();
  assert.equal(await page.locator(".turn").count(), 6);
}
