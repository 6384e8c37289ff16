// What this browser keeps: the key, the conversation about each video, and a few habits.

function storageOf(name) {
  try {
    window[name].setItem("hourllava.try", "1");
    window[name].removeItem("hourllava.try");
    return window[name];
  } catch {
    return null; // refused by the browser's settings: then nothing outlives the page
  }
}

const forever = storageOf("localStorage");
const tab = storageOf("sessionStorage");

function get(storage, name) {
  try {
    return JSON.parse(storage?.getItem(`hourllava.${name}`) ?? "null");
  } catch {
    return null;
  }
}

function put(storage, name, value) {
  try {
    if (value === null) storage?.removeItem(`hourllava.${name}`);
    else storage?.setItem(`hourllava.${name}`, JSON.stringify(value));
  } catch {
    // Full: the page works on, and keeps no more.
  }
}

/** The key of the server's interface. It lives in this tab, or on this device if the user says so. */
export const key = {
  value: get(tab, "key") ?? get(forever, "key"),
  set(value, isKept) {
    this.value = value;
    put(tab, "key", value);
    put(forever, "key", isKept ? value : null);
  },
};

const MOST_TURNS = 200;

/** The conversation about a memory: a list of turns, oldest first. */
export const turnsOf = (memoryId) => get(forever, `turns.${memoryId}`) ?? [];
export const saveTurns = (memoryId, turns) =>
  put(forever, `turns.${memoryId}`, turns.length ? turns.slice(-MOST_TURNS) : null);

/** Subtitles of a memory: {fileId, name} or null. */
export const subtitlesOf = (memoryId) => get(forever, `subtitles.${memoryId}`);
export const saveSubtitles = (memoryId, subtitles) => put(forever, `subtitles.${memoryId}`, subtitles);

/** Nothing about a memory is kept any more. */
export function forget(memoryId) {
  saveTurns(memoryId, []);
  saveSubtitles(memoryId, null);
}

/** A habit, such as the playing speed. */
export const habit = (name, otherwise) => get(forever, `habit.${name}`) ?? otherwise;
export const saveHabit = (name, value) => put(forever, `habit.${name}`, value);
