// The row of controls below the picture.

import { button, fill, h, icon } from "./dom.js";
import { clock } from "./format.js";
import { habit, saveHabit } from "./saved.js";

const SPEEDS = [0.5, 1, 1.5, 2, 4];

/** Controls of a player. `onMoment(-1 | 1)` goes to the moment before or after. */
export function controls(player, onMoment) {
  const { video } = player;
  const play = button({ label: "Play", iconName: "play", kind: "icon-only play", on: () => player.toggle() });
  const before = button({ label: "Moment before (P)", iconName: "previous", kind: "icon-only", on: () => onMoment(-1) });
  const after = button({ label: "Next moment (N)", iconName: "next", kind: "icon-only", on: () => onMoment(1) });
  const now = h("span", { class: "now" }, "0:00");
  const whole = h("span", { class: "whole" }, "–:––");
  const mute = button({ label: "Mute (M)", iconName: "sound", kind: "icon-only", on: () => { video.muted = !video.muted; } });
  const captions = button({ label: "Captions (C)", iconName: "captions", kind: "icon-only", hidden: true, on: toggleCaptions });
  const speed = button({ label: "Speed", kind: "plain speed", on: changeSpeed });
  const stills = h("span", { class: "quiet stills-note", hidden: true }, "Pictures only: this browser cannot play the file");
  const full = button({ label: "Full screen (F)", iconName: "full", kind: "icon-only", on: () => video.requestFullscreen?.() });
  const element = h(
    "div",
    { class: "controls", role: "group", "aria-label": "Player" },
    play, before, after,
    h("span", { class: "times" }, now, h("span", { "aria-hidden": "true" }, " / "), whole),
    h("span", { class: "gap" }),
    stills, captions, speed, mute, full,
  );

  function changeSpeed() {
    const next = SPEEDS[(SPEEDS.indexOf(video.playbackRate) + 1) % SPEEDS.length];
    setSpeed(next);
    saveHabit("speed", next);
  }
  function setSpeed(rate) {
    video.defaultPlaybackRate = rate;
    video.playbackRate = rate;
    speed.textContent = `${rate}×`;
    speed.setAttribute("aria-label", `Speed: ${rate} times. Change it`);
  }
  function toggleCaptions() {
    const { track } = player.captions ?? {};
    if (!track) return;
    track.mode = track.mode === "showing" ? "hidden" : "showing";
    captions.setAttribute("aria-pressed", String(track.mode === "showing"));
  }
  const showPlaying = () => {
    const label = player.isPlaying ? "Pause (K)" : "Play (K)";
    fill(play, icon(player.isPlaying ? "pause" : "play"));
    play.setAttribute("aria-label", label);
    play.title = label;
  };
  player.addEventListener("playing", showPlaying);
  player.addEventListener("time", () => { now.textContent = clock(player.time); });
  player.addEventListener("length", () => { whole.textContent = clock(player.length); });
  player.addEventListener("stills", () => { 
    for (const each of [mute, full, speed, captions]) each.hidden = true;
    stills.hidden = false;
  });
  video.addEventListener("volumechange", () => {
    fill(mute, icon(video.muted ? "muted" : "sound"));
    mute.setAttribute("aria-pressed", String(video.muted));
  });
  showPlaying();
  setSpeed(SPEEDS.includes(habit("speed", 1)) ? habit("speed", 1) : 1);

  return {
    element,
    toggleCaptions,
    fullScreen: () => full.hidden || full.click(),
    mute: () => mute.hidden || mute.click(),
    /** Captions can be switched (and are on), or there are none. */
    setCaptions(are) {
      captions.hidden = !are || player.isStill;
      captions.setAttribute("aria-pressed", String(are));
    },
    /** Whether there are moments to go to. */
    setMoments(are) {
      before.disabled = after.disabled = !are;
    },
  };
}
