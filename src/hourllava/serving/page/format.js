// Times, sizes and counts as people read them.

/** 425 -> "7:05", 3725 -> "1:02:05"; `tenths` adds ".4". Seconds that are not a number give "–:––". */
export function clock(seconds, tenths = false) {
  if (!Number.isFinite(seconds)) return "–:––";
  const whole = Math.floor(Math.max(0, seconds) + 1e-6);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  const text = hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  return tenths ? `${text}.${Math.floor((seconds - whole + 1e-6) * 10)}` : text;
}

/** "7:05–7:20"; a span within one second shows that second alone. */
export function range(span) {
  const [start, end] = [clock(span.start_seconds), clock(span.end_seconds)];
  return start === end ? start : `${start}–${end}`;
}

/** 0.413 -> "41 %"; small weights stay above nothing: "< 1 %". */
export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  return `${Math.round(share * 100)} %`;
}

/** A moment in words, as its button says: "Moment 1: 7:00 to 7:20, 41 %". */
export function momentWords(span, index) {
  return `Moment ${index + 1}: ${range(span).replace("–", " to ")}, ${percent(span.weight)}`;
}

/** A length of time in words: "8 s", "4 min", "1 h 20 min". */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

/** 1536000 -> "1.5 MB". */
export function bytes(number) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = number;
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** 3600 -> "3,600". */
export function count(number) {
  return Math.round(number).toLocaleString("en");
}

/** "1 moment", "3 moments". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** When something was, in few words: "just now", "12 min ago", "today 14:05", "3 November". */
export function ago(unixSeconds, now = Date.now() / 1000) {
  const passed = now - unixSeconds;
  const date = new Date(unixSeconds * 1000);
  if (passed < 90) return "just now";
  if (passed < 3600) return `${Math.round(passed / 60)} min ago`;
  if (passed < 86400 && date.getDate() === new Date(now * 1000).getDate()) {
    return `today ${date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
  }
  const year = date.getFullYear() === new Date(now * 1000).getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "long", year });
}

/** A step for a ruler, so that `length` seconds have at most `marks` marks. */
export function rulerStep(length, marks) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000, 86400];
  return steps.find((step) => length / step <= marks) ?? Math.ceil(length / marks / 86400) * 86400;
}
