// Several videos dropped at once, one of the server's folder, a part of it, and removing.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { isWatched } from "../steps.mjs";

export default async function ({ page, url, video, unplayable }) {
  await page.goto(url);
  await page.locator(".drop").waitFor();
  const dropped = await Promise.all([video, unplayable].map(async (path) => [path.split("/").at(-1), (await readFile(path)).toString("base64")]));
  await page.evaluate((files) => {
    const transfer = new DataTransfer();
    for (const [name, text] of files) transfer.items.add(new File([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))], name));
    for (const kind of ["dragenter", "dragover"]) window.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, cancelable: true }));
    if (document.querySelector(".veil").hidden) throw new Error("nothing says that files can be dropped");
    window.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
  }, dropped);
  await page.locator('.video-card[data-kind="ready"]').nth(1).waitFor();
  await page.waitForFunction(() => [...document.querySelectorAll(".thumb img")].filter((image) => image.naturalWidth > 0).length === 2);

  await page.getByRole("button", { name: "From the server's folder" }).click();
  await page.getByLabel("Part of a name").fill("shelf talk");
  await page.getByRole("dialog").getByRole("button", { name: /talk\.mp4/ }).click();
  await isWatched(page);
  assert.equal(await page.locator("h1").innerText(), "talk.mp4");
  await page.waitForFunction(() => document.querySelector("video").videoWidth > 0);

  await page.locator("summary[aria-label=More]").click();
  await page.getByRole("button", { name: /Watch a part/ }).click();
  await page.getByLabel("From", { exact: true }).fill("1:70x");
  await page.getByRole("button", { name: "Watch", exact: true }).click();
  await page.getByText("Write times like").waitFor();
  await page.getByLabel("From", { exact: true }).fill("1:00");
  await page.getByLabel("To", { exact: true }).fill("2:00");
  await page.getByRole("button", { name: "Watch", exact: true }).click();
  await page.locator(".shades .outside").nth(1).waitFor();
  await page.locator(".strip.filled").waitFor();
  const [before, within, after] = await page.locator(".strip").evaluate((canvas) => {
    const inked = (share) => canvas.getContext("2d").getImageData(Math.floor(share * canvas.width), 5, 1, 1).data[3];
    return [inked(0.03), inked(90 / 500), inked(0.9)];
  });
  assert.deepEqual([before, within, after], [0, 255, 0]); // pictures of the part alone

  await page.getByRole("link", { name: /all videos/ }).click();
  await page.locator(".video-card").nth(3).waitFor();
  await page.locator(".video-card").first().hover();
  await page.getByRole("button", { name: "Remove talk.mp4" }).first().click();
  await page.getByText("stays on the server").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".video-card").length === 3);
}
