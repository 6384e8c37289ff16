// axe-core finds nothing serious in any view, light and dark, wide and 390 px; nothing is wider than the window.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { addVideo, ask, fitsInWidth, isWatched, says } from "../steps.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
export const expected = [/status of 400/, /Content Security Policy/]; // axe itself is no part of the page

export default async function ({ page, url, video, text }) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Page.setBypassCSP", { enabled: true });

  async function check(where) {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.addScriptTag({ path: AXE });
      const { violations } = await page.evaluate(() => window.axe.run());
      const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
      const words = serious.flatMap(({ id, nodes }) => nodes.map((node) => `${where}, ${colorScheme}: ${id} ${node.html} ${node.failureSummary}`));
      assert.deepEqual(words, []);
    }
    await fitsInWidth(page, where);
  }

  for (const [width, height] of [[1440, 900], [390, 844]]) {
    await page.setViewportSize({ width, height });
    await page.goto(url);
    await page.locator(".drop").waitFor();
    await check("first view");
    await page.locator("#video-file").setInputFiles(text);
    await says(page, "The video was not accepted");
    await check("failed");
    await addVideo(page, url, video);
    await isWatched(page);
    await check("watched");
    await page.locator("#question").click();
    await check("writing");
    await ask(page, "Which car?");
    await check("answered");
    await page.getByRole("radio", { name: "Choose" }).check();
    await page.locator("#question").fill("What colour?");
    await page.getByLabel("Choice A").fill("red");
    await page.getByLabel("Choice B").fill("green");
    await check("choosing");
    await page.getByRole("button", { name: "Choose", exact: true }).click();
    await page.locator(".option.best").waitFor();
    await check("chosen");
    await page.keyboard.press("Escape");
    await page.locator("summary[aria-label=More]").click();
    await check("menu");
    await page.getByRole("button", { name: /Watch a part/ }).click();
    await check("part");
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: /all videos/ }).click();
    await page.locator(".video-card").first().waitFor();
    await check("videos");
    await page.evaluate(() => localStorage.clear());
  }
}
