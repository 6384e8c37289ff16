// Reads server-sent events from a fetch response: EventSource could not send the key.

/** The data of each event; comments and events without data are skipped. Raises what the connection raises. */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      const { events, rest } = splitEvents(buffer);
      buffer = rest;
      yield* events;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The whole events in a text, and what is left of it. */
export function splitEvents(text) {
  const held = text.endsWith("\r") ? "\r" : ""; // perhaps half of a line's end
  const blocks = text.slice(0, text.length - held.length).replace(/\r\n?/g, "\n").split("\n\n");
  const rest = blocks.pop() + held;
  const events = blocks
    .map((block) => block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, "")))
    .filter((lines) => lines.length)
    .map((lines) => lines.join("\n"));
  return { events, rest };
}
