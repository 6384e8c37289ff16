// Answers as JSON, CSV and SRT, and the memory.

import assert from "node:assert/strict";
import { addVideo, ask, downloaded, isWatched } from "../steps.mjs";

export default async function ({ page, url, video }) {
  await addVideo(page, url, video);
  await isWatched(page);
  await ask(page, '=HYPERLINK("evil") is this, "safe"?');
  const pick = (name) => async () => {
    await page.locator("summary", { hasText: "Download" }).click();
    await page.getByRole("button", { name }).click();
  };
  const json = await downloaded(page, pick("Answers as JSON"));
  assert.equal(json.name, "lecture.answers.json");
  const { answers } = JSON.parse(json.text);
  assert.deepEqual(answers[0].evidence[0], { start_seconds: 420, end_seconds: 440, weight: 0.4 });
  const csv = await downloaded(page, pick("Answers as a table"));
  assert.match(csv.text, /,"'=HYPERLINK\(""evil""\) is this, ""safe""\?",A red car\.,/);
  const srt = await downloaded(page, pick("Moments as subtitles"));
  assert.match(srt.text, /^1\n00:00:05,000 --> 00:00:09,500\n/);
  const memory = await downloaded(page, pick("The memory"));
  assert.equal(memory.name, "lecture.memory.safetensors");
  assert.match(memory.text, /^memory of/);
}
