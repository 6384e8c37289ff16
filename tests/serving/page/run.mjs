// Runs one scenario in headless Chromium: node run.mjs SCENARIO '{"url": ..., "chromium": ..., ...}'.
// It fails if the scenario does, if a request leaves loopback, or if the page reports an error.

import { chromium } from "playwright-core";

const [, , name, json] = process.argv;
const given = JSON.parse(json);
const { default: scenario, viewport = { width: 1280, height: 800 }, expected = [] } = await import(`./scenarios/${name}.mjs`);
const browser = await chromium.launch({ executablePath: given.chromium, args: ["--no-sandbox", "--disable-gpu", "--mute-audio"] });
const faults = [];

try {
  const context = await browser.newContext({ viewport, reducedMotion: "reduce", acceptDownloads: true, permissions: ["clipboard-write", "clipboard-read"] });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  context.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (protocol.startsWith("http") && hostname !== "127.0.0.1") faults.push(`a request left loopback: ${request.url()}`);
  });
  page.on("pageerror", (error) => faults.push(`error on the page: ${error.stack}`));
  page.on("console", (message) => {
    const text = `${message.text()} ${message.location().url}`;
    if (message.type() === "error" && !expected.some((pattern) => pattern.test(text))) faults.push(`console: ${text}`);
  });
  await scenario({ page, ...given });
} catch (error) {
  faults.push(error.stack);
} finally {
  await browser.close();
}
if (faults.length) {
  console.error(faults.join("\n"));
  process.exitCode = 1;
}
