"""From a script to frames of any size, without torch and without an encoder.

Objects at rest are pasted once per (event, number of finished actions); only moving objects are pasted for every frame.
At 64 pixels one core renders several thousand frames a second (`benchmarks/world.py`).
"""

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hourllava.errors import ConfigError
from hourllava.world.drawing.backdrops import backdrop
from hourllava.world.drawing.motion import DIAMETERS, Pose, moving, place_centre
from hourllava.world.drawing.sprites import card, sprite
from hourllava.world.script import Event, Script, places_after

Frame = NDArray[np.uint8]
TRANSITION_SECONDS = 0.75  # ends at the event's start: whole seconds are never in a transition
MIN_PIXELS, MAX_PIXELS = 16, 2048
_KEPT_STILLS = 32


def render_frames(script: Script, times_seconds: Sequence[float], size_pixels: int) -> Frame:
    """Frames at the given times: uint8 RGB [len(times), size, size, 3].

    Raises:
        ConfigError: a time outside [0, duration) or a size outside 16 to 2048.
    """
    renderer = Renderer(script, size_pixels)
    frames = np.empty((len(times_seconds), size_pixels, size_pixels, 3), dtype=np.uint8)
    for frame, time_seconds in zip(frames, times_seconds):
        frame[...] = renderer.frame(time_seconds)
    return frames


class Renderer:
    """Draws one script at one size and keeps the pictures that several frames share."""

    def __init__(self, script: Script, size_pixels: int):
        if not MIN_PIXELS <= size_pixels <= MAX_PIXELS:
            raise ConfigError(f"a frame of {size_pixels} pixels was asked for; use {MIN_PIXELS} to {MAX_PIXELS}")
        self.script = script
        self.size_pixels = size_pixels
        self._looks = {member.name: member for member in script.cast}
        self._event_starts = [event.start_seconds for event in script.events]
        self._needle_starts = [needle.start_seconds for needle in script.needles]
        self._stills: dict[tuple[int, int, bool], Frame] = {}

    def frame(self, time_seconds: float) -> Frame:
        """The frame at a time, uint8 [size, size, 3]. It may be read-only and shared: copy it before drawing on it."""
        if not 0 <= time_seconds < self.script.duration_seconds:
            raise ConfigError(f"no frame at {time_seconds} s: the video lasts {self.script.duration_seconds} s")
        k = bisect.bisect_right(self._needle_starts, time_seconds) - 1
        if k >= 0 and time_seconds < self.script.needles[k].end_seconds:
            needle = self.script.needles[k]
            return card(needle.glyph, needle.colour, self.size_pixels)
        index = bisect.bisect_right(self._event_starts, time_seconds) - 1
        frame = self._stage(index, time_seconds)
        if index + 1 < len(self.script.events):
            following = self.script.events[index + 1]
            share = 1 - (following.start_seconds - time_seconds) / TRANSITION_SECONDS
            if share > 0 and following.transition != "cut":
                return self._mix(frame, self._stage(index + 1, following.start_seconds), following.transition, share)
        return frame

    def _mix(self, old: Frame, new: Frame, transition: str, share: float) -> Frame:
        if transition == "wipe":
            edge = round(share * self.size_pixels)
            return np.concatenate([new[:, :edge], old[:, edge:]], axis=1)
        return (old * (1 - share) + new * share).astype(np.uint8)

    def _stage(self, index: int, time_seconds: float) -> Frame:
        event = self.script.events[index]
        done = sum(action.end_seconds <= time_seconds for action in event.actions)
        action = event.actions[done] if done < len(event.actions) else None
        if action is None or time_seconds < action.start_seconds:
            return self._still(index, done, all_rest=True)
        frame = self._still(index, done, all_rest=False).copy()
        for pose in moving(action, self._places(event, done), time_seconds):
            self._paste(frame, pose)
        return frame

    def _places(self, event: Event, done: int) -> dict[str, str]:
        places = dict(event.places)
        for action in event.actions[:done]:
            places = places_after(places, action)
        return places

    def _still(self, index: int, done: int, *, all_rest: bool) -> Frame:
        """The event after `done` actions: with all objects, or without those that the next action moves."""
        key = (index, done, all_rest)
        if key not in self._stills:
            event = self.script.events[index]
            busy = set() if all_rest else {event.actions[done].actor, event.actions[done].partner}
            frame = backdrop(event.scene, event.occasion, self.size_pixels).copy()
            for name, place in self._places(event, done).items():
                if name not in busy:
                    self._paste(frame, Pose(name, *place_centre(place)))
            frame.flags.writeable = False
            if len(self._stills) >= _KEPT_STILLS:
                self._stills.pop(next(iter(self._stills)))
            self._stills[key] = frame
        return self._stills[key]

    def _paste(self, frame: Frame, pose: Pose) -> None:
        look = self._looks[pose.name]
        diameter = max(3, round(DIAMETERS[look.size] * pose.scale * self.size_pixels))
        colour, keep = sprite(look.shape, look.colour, diameter, round(pose.angle_degrees) % 360)
        left = round(pose.x * self.size_pixels - diameter / 2)
        top = round(pose.y * self.size_pixels - diameter / 2)
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(self.size_pixels, left + diameter), min(self.size_pixels, top + diameter)
        if x0 >= x1 or y0 >= y1:
            return
        inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        frame[y0:y1, x0:x1] = colour[inside] + (frame[y0:y1, x0:x1] * keep[inside] >> 8)
