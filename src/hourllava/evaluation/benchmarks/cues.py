"""Subtitles of a video, and which of them a prompt shows.

Protocols choose cues by the frames that are looked at, each in its own way:

    at_frames     cues that are on screen at one of the frames, in order, each once
    harness_text  lmms-eval's text for Video-MME: the cues at 32 frames, not always in order of time
    interleaved   LongVideoBench's rule: frames and cues in one sequence

Source of the rules: docs/public-benchmarks.md#subtitles.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hourllava.errors import DataError
from hourllava.inference.questions.subtitle_text import read_text
from hourllava.inference.questions.subtitles import Cue, read_subtitles

_TAGGED = re.compile(r'<font color="white" size=".72c">(.*?)</font>')
_SHORT_SECONDS = 1.0  # a shorter cue is widened by the interleaving rule


class TimedText(NamedTuple):
    """A cue as its file has it, on the file's clock; the end may be missing."""

    start_seconds: float
    end_seconds: float | None
    text: str


class Sampling(NamedTuple):
    """Which moments of a video were looked at, and how long it is.

    Attributes:
        frame_seconds: of the frames that the model saw, on the player's clock.
        duration_seconds: of the video, as published or, if it is not, as watched.
        file_fps: frames per second of the file.
        file_frames: frames of the file.
    """

    frame_seconds: Sequence[float]
    duration_seconds: float
    file_fps: float
    file_frames: int


def timed_texts(path: Path, *, as_authors: bool = False) -> list[TimedText]:
    """The cues of a .json file of either published shape, or of an .srt or .vtt file, in the order of the file.

    Args:
        path: of the file.
        as_authors: whether an end that is a whole number counts as missing: in the script of LongVideoBench's authors,
            and in lmms-eval, only numbers with a point are ends.

    Raises:
        DataError: the file cannot be read, or a cue has another form.
    """
    if path.suffix.lower() != ".json":
        return [TimedText(cue.start_seconds, cue.end_seconds, cue.text) for cue in read_subtitles(path)]
    try:
        cells = json.loads(read_text(path, None))
        return [_timed_text(cell, as_authors) for cell in cells]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no subtitle file of LongVideoBench ({error!r:.100}); unpack it again") from error


def _timed_text(cell: Any, as_authors: bool) -> TimedText:
    if "timestamp" in cell:
        start, end = cell["timestamp"]
        is_missing = end is None or (as_authors and not isinstance(end, float))
        return TimedText(float(start), None if is_missing else float(end), str(cell["text"]))
    return TimedText(_clock_seconds(cell["start"]), _clock_seconds(cell["end"]), str(cell["line"]))


def _clock_seconds(text: str) -> float:
    hours, minutes, seconds = text.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def cues_of_part(cues: Sequence[TimedText], start_seconds: float, duration_seconds: float) -> list[Cue]:
    """The cues of a part that was cut out of a longer video, on the part's clock; others are dropped.

    Args:
        cues: of the whole video.
        start_seconds: where the part begins.
        duration_seconds: of the part; a cue without an end lasts until then.
    """
    part = []
    for cue in cues:
        start = cue.start_seconds - start_seconds
        end = duration_seconds if cue.end_seconds is None else cue.end_seconds - start_seconds
        if end > 0 and start < duration_seconds:
            part.append(Cue(max(0.0, start), min(max(start, end), duration_seconds), cue.text))
    return part


def at_frames(cues: Sequence[Cue], frame_seconds: Sequence[float]) -> list[str]:
    """Texts of the cues that are on screen at one of the frames, in order, each once."""
    frames = np.sort(np.asarray(frame_seconds, np.float64))
    first = np.searchsorted(frames, [cue.start_seconds for cue in cues])
    after = np.searchsorted(frames, [cue.end_seconds for cue in cues])
    return [cue.text for cue, begin, end in zip(cues, first, after) if begin < end]


class Section(NamedTuple):
    """A section of an .srt file, as lmms-eval cuts it: at blank lines.

    Attributes:
        start_seconds, end_seconds: when it is on screen.
        lines: of its text.
    """

    start_seconds: float
    end_seconds: float
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The lines as one."""
        return " ".join(self.lines)


def srt_sections(path: Path) -> list[Section]:
    """The sections of an .srt file.

    Raises:
        DataError: the file cannot be read, or a time has another form: the harness stops there, too.
    """
    found = []
    text = read_text(path, None).replace("\r\n", "\n").replace("\r", "\n")
    for section in text.strip().split("\n\n"):
        lines = section.split("\n")
        place = next((k for k, line in enumerate(lines) if " --> " in line), None)
        if place is None:
            continue
        try:
            start, end = map(_srt_seconds, lines[place].split(" --> ", 1))
        except ValueError as error:
            raise DataError(f"{path}: {lines[place]!r:.80} are no times; unpack the subtitles again") from error
        found.append(Section(start, end, tuple(lines[place + 1 :])))
    return found


def _srt_seconds(text: str) -> float:
    """Seconds of `HH:MM:SS,mmm`; what stands behind the comma are milliseconds, however many digits there are."""
    clock, _, milliseconds = text.strip().replace(".", ",").partition(",")
    return _clock_seconds(clock) + int(milliseconds or 0) / 1000


def harness_text(sections: Sequence[Section], sampling: Sampling, num_frames: int = 32) -> str:
    """The subtitle text of lmms-eval's `videomme_w_subtitle`: cues at evenly spaced frames of the file.

    Only text inside the published `<font>` tag counts. The numbers of the cues go through a set, so from about a
    hundred cues on they are not in order of time (lmms-eval#452); a score that is to be compared needs the same order.
    A section without text has no number.
    """
    # Of equal times, the last text counts.
    sections = list({section[:2]: section for section in sections if section.lines}.values())
    numbers = []
    for frame in np.linspace(0, sampling.file_frames - 1, num_frames, dtype=int).tolist():
        for number, (start, end, _) in enumerate(sections):
            if int(start * sampling.file_fps) <= frame < int(end * sampling.file_fps):
                numbers.append(number)
    tagged = [_TAGGED.search(sections[number].text) for number in set(numbers)]
    return "\n".join(match[1] for match in tagged if match)


def sections_at_frames(sections: Sequence[Section], frame_seconds: Sequence[float]) -> str:
    """The texts of all sections that are on screen at one of the frames, one a line."""
    cues = [Cue(section.start_seconds, section.end_seconds, section.text) for section in sections]
    return "\n".join(at_frames(cues, frame_seconds))


def evenly_spaced(sampling: Sampling, num_frames: int = 32) -> list[float]:
    """Times of evenly spaced frames of the file, the first and the last included."""
    count = max(1, min(num_frames, sampling.file_frames))
    return [k * (sampling.file_frames - 1) / max(count - 1, 1) / sampling.file_fps for k in range(count)]


def interleaved(
    cues: Sequence[TimedText], frame_seconds: Sequence[float], start_seconds: float, duration_seconds: float
) -> list[str | None]:
    """LongVideoBench's sequence of frames (None) and texts of cues.

    Before a cue come all frames up to its middle that have not come yet. Its text comes only if a frame lies inside
    it, where a cue shorter than a second counts as one second.

    Args:
        cues: in the order of their file.
        frame_seconds: times of the frames, increasing, from the beginning of the part.
        start_seconds: where in the cues' video the part begins.
        duration_seconds: stands for the end of a cue that has none.
    """
    sequence: list[str | None] = []
    num_shown = 0
    for cue in cues:
        start = cue.start_seconds - start_seconds
        end = (duration_seconds if cue.end_seconds is None else cue.end_seconds) - start_seconds
        middle = (start + end) / 2
        while num_shown < len(frame_seconds) and frame_seconds[num_shown] <= middle:
            sequence.append(None)
            num_shown += 1
        if end - start < _SHORT_SECONDS:
            start, end = middle - _SHORT_SECONDS / 2, middle + _SHORT_SECONDS / 2
        if any(start < seconds < end for seconds in frame_seconds):
            sequence.append(cue.text)
    return sequence + [None] * (len(frame_seconds) - num_shown)
