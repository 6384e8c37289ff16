// The server's HTTP interface: one function a call, one kind of error. Nothing else on this page sends requests.

import { readEvents } from "./events.js";
import { key } from "./saved.js";

/** What the server refused. `code` is for programs; status 0 means: no answer at all. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "unreachable", retrySeconds = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retrySeconds });
  }
}

const UNREACHABLE = "The server does not answer. Is it still running?";

/** An address of the server, relative to the page: a proxy may have put both below a folder. */
export function address(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI).href;
}

function headers(extra = {}) {
  return key.value ? { Authorization: `Bearer ${key.value}`, ...extra } : extra;
}

/** The error of an answer that is not 2xx, from its status, body text and header reader. */
function refusal(status, text, header) {
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // A proxy's page, not the server's answer.
  }
  const retry = Number.parseFloat(header("Retry-After"));
  return new ApiError(error.message ?? `The server answered with status ${status}.`, {
    status,
    code: error.code ?? `status_${status}`,
    retrySeconds: Number.isFinite(retry) ? retry : null,
  });
}

/** A request; raises ApiError, or AbortError if `signal` ended it. */
export async function send(path, { method = "GET", json, body, signal } = {}) {
  let response;
  try {
    response = await fetch(address(path), {
      method,
      signal,
      headers: headers(json === undefined ? {} : { "Content-Type": "application/json" }),
      body: json === undefined ? body : JSON.stringify(json),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(UNREACHABLE);
  }
  if (!response.ok) throw refusal(response.status, await response.text(), (name) => response.headers.get(name));
  return response;
}

const read = async (path, options) => (await send(path, options)).json();
const memoryPath = (id, rest = "") => `v1/hourllava/memories/${encodeURIComponent(id)}${rest}`;

export const settings = () => read("v1/hourllava/settings");
export const memories = async () => (await read("v1/hourllava/memories")).data;
export const memory = (id, signal) => read(memoryPath(id), { signal });
export const mediaFiles = async () => (await read("v1/hourllava/media")).data;
/** The memory of a video: `source` is {file_id}, {media_path} or {url}, with fps, start_seconds, end_seconds as one likes. */
export async function watch(source) {
  let found = await read("v1/hourllava/memories", { method: "POST", json: source });
  // The server accepts before it begins: for a moment the state may be that of an earlier try.
  for (let tries = 0; tries < 10 && ["failed", "cancelled"].includes(found.state); tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 150));
    found = await memory(found.id);
  }
  return found;
}
export const cancelWatch = (id) => read(memoryPath(id, "/cancel"), { method: "POST" });
export const choose = (id, json, signal) => read(memoryPath(id, "/choose"), { method: "POST", json, signal });
export const find = async (id, json, signal) =>
  (await read(memoryPath(id, "/find"), { method: "POST", json, signal })).data;
export const filmstrip = (id) => read(memoryPath(id, "/filmstrip"));
export const downloadMemory = (id) => send(memoryPath(id, "/download"));
export const subtitlesText = async (fileId) =>
  (await send(`v1/hourllava/subtitles/${encodeURIComponent(fileId)}`)).text();

/** Remove a memory; `withFile`: also the file that it was made of. */
export async function remove({ id, file_id: fileId }, withFile) {
  await read(memoryPath(id), { method: "DELETE" });
  if (withFile) await read(`v1/files/${encodeURIComponent(fileId)}`, { method: "DELETE" });
}

/** Pictures come with the key in a header, so they are fetched, and shown from a blob. Give the address back to URL.revokeObjectURL. */
export async function picture(path, signal) {
  return URL.createObjectURL(await (await send(path, { signal })).blob());
}

export const framePath = (id, seconds, width) =>
  memoryPath(id, `/frames?at=${Math.max(0, seconds).toFixed(2)}&width=${width}`);

/** A small file, such as subtitles. */
export function uploadSmall(file) {
  const form = new FormData();
  form.append("purpose", "user_data");
  form.append("file", file, file.name);
  return read("v1/files", { method: "POST", body: form });
}

/** A video, sent as it is. `onProgress(bytesSent)`; fetch cannot tell how far a body is, XMLHttpRequest can. */
export function uploadVideo(file, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", address(`v1/hourllava/videos?filename=${encodeURIComponent(file.name)}`));
    for (const [name, value] of Object.entries(headers({ "Content-Type": "application/octet-stream" }))) {
      request.setRequestHeader(name, value);
    }
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.status, request.responseText, (name) => request.getResponseHeader(name)));
    });
    request.addEventListener("error", () => reject(new ApiError("The connection broke before the video was sent.")));
    request.addEventListener("abort", () => reject(new DOMException("Stopped", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

/** The memory object at each change, to a final state. Begins anew when the connection breaks. */
export async function* followMemory(id, signal) {
  let failures = 0;
  while (!signal.aborted) {
    try {
      const response = await send(memoryPath(id, "/events"), { signal });
      for await (const event of readEvents(response)) {
        const state = JSON.parse(event);
        failures = 0;
        yield state;
        if (["ready", "failed", "cancelled"].includes(state.state)) return;
      }
    } catch (error) {
      if (error.name === "AbortError" || (error.status >= 400 && error.status < 500)) throw error;
    }
    failures += 1;
    await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** failures, 10000)));
  }
}

/**
 * Ask, and yield what comes: {memory} while the video is being watched, {text} pieces, then one
 * {evidence, firstTokenSeconds, totalSeconds, finish}.
 */
export async function* ask({ model, memoryId, question, history, extras }, signal) {
  const messages = history.flatMap(([asked, answered]) => [
    { role: "user", content: asked },
    { role: "assistant", content: answered },
  ]);
  const response = await send("v1/chat/completions", {
    method: "POST",
    signal,
    json: {
      model,
      messages: [...messages, { role: "user", content: question }],
      stream: true,
      hourllava: { memory_id: memoryId, progress: true, ...extras },
    },
  });
  let isWhole = false;
  for await (const event of readEvents(response)) {
    if (event === "[DONE]") break;
    const chunk = JSON.parse(event);
    if (chunk.error) throw new ApiError(chunk.error.message, { status: 200, code: chunk.error.code });
    const { delta = {}, finish_reason: finish } = chunk.choices?.[0] ?? {};
    const ours = delta.hourllava ?? chunk.hourllava ?? {};
    if (ours.watching) yield { memory: ours.watching };
    if (delta.content) yield { text: delta.content };
    if (finish) {
      isWhole = true;
      yield {
        evidence: ours.evidence ?? [],
        firstTokenSeconds: ours.first_token_seconds ?? null,
        totalSeconds: ours.total_seconds ?? null,
        finish,
      };
    }
  }
  if (!isWhole) throw new ApiError("The connection broke before the answer was whole.");
}
