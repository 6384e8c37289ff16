"""Subtitles (.srt, .vtt) as text of a prompt, trimmed to a token budget around the moments that matter.

Both formats are read by one tolerant pass over the lines: what files in the wild share is a line with two times, text
below it, and blank lines or comments between. The libraries we looked at refuse files that players show (webvtt-py:
.srt without numbers or hours) or take comments for speech (pysubs2: NOTE blocks of .vtt), and cleaning the text would
still be ours.

    cues = read_subtitles("lecture.srt")
    text = subtitles_prompt(cues, [(610.0, 640.0)], 2000, lambda text: len(tokenizer.encode(text)))
"""

import codecs
import html
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hourllava.clock import format_clock
from hourllava.errors import DataError

# Hours and fractions may be missing, the comma of .srt and the dot of .vtt both stand for the decimal point.
_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_COMMENT = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_MARKUP = re.compile(r"</?[A-Za-z0-9][^<>]*>|\{\\[^}]*\}")  # <i>, </c>, <v Ann>, <00:01.500>, {\an8}

# Cues this close are one stretch of speech: rolling captions leave gaps of 10 ms.
_TOUCHING_SECONDS = 0.05


@dataclass(frozen=True)
class Cue:
    """One subtitle: when it is on screen and what it says, on one line without markup."""

    start_seconds: float
    end_seconds: float
    text: str


def read_subtitles(path: str | os.PathLike[str]) -> list[Cue]:
    """The cues of a .srt or .vtt file in time order.

    UTF-8 or UTF-16 with or without byte order mark, else Latin-1. Captions that roll (each cue repeats the lines before
    it) or are doubled are merged, so that everything is said once.

    Raises:
        DataError: the file is missing or unreadable, of another kind, or holds no subtitles.
    """
    path = Path(path)
    if path.suffix.lower() not in (".srt", ".vtt"):
        raise DataError(f"{path} is no subtitle file; give a .srt or .vtt file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); give a .srt or .vtt file") from error
    text = _decode(path, content)
    blocks = _timed_blocks(text.splitlines())
    if not blocks and not text.startswith("WEBVTT"):
        raise DataError(f"{path} holds no subtitles: no line such as 00:00:01,000 --> 00:00:02,500 was found")
    return _said_once(sorted(blocks, key=lambda block: block[0]))


def subtitles_prompt(
    cues: Sequence[Cue],
    spans: Sequence[tuple[float, float]],
    max_tokens: int,
    count_tokens: Callable[[str], int],
) -> str:
    """Subtitles as lines `[h:mm:ss] text` in time order: all of them if they fit, else those nearest to the spans.

    Args:
        cues: as read.
        spans: (start_seconds, end_seconds) of the moments that matter; without any, the earliest cues come first.
        max_tokens: the most tokens the text may take.
        count_tokens: of a text.

    Returns:
        Lines without a newline at the end; "" if there are no cues or none fits.
    """
    chosen = sorted(cues, key=lambda cue: cue.start_seconds)
    if count_tokens(_lines(chosen)) <= max_tokens:
        return _lines(chosen)
    nearest_first = sorted(chosen, key=lambda cue: min((_distance(cue, span) for span in spans), default=0.0))
    chosen, tokens_left = [], max_tokens
    for cue in nearest_first:
        tokens = count_tokens(_lines([cue]) + "\n")
        if tokens <= tokens_left:
            chosen.append(cue)
            tokens_left -= tokens
    # A tokenizer may need more for the whole than for its lines: the budget holds for the whole.
    while chosen and count_tokens(_lines(chosen)) > max_tokens:
        chosen.pop()
    return _lines(chosen)


def _lines(cues: Sequence[Cue]) -> str:
    in_order = sorted(cues, key=lambda cue: cue.start_seconds)
    return "\n".join(f"[{format_clock(cue.start_seconds)}] {cue.text}" for cue in in_order)


def _distance(cue: Cue, span: tuple[float, float]) -> float:
    """Seconds between a cue and a span; 0 if they overlap."""
    start_seconds, end_seconds = span
    return max(0.0, start_seconds - cue.end_seconds, cue.start_seconds - end_seconds)


def _decode(path: Path, content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is damaged: it begins as UTF-16 text but does not go on so") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _timed_blocks(lines: Sequence[str]) -> list[tuple[float, float, list[str]]]:
    """(start_seconds, end_seconds, lines of text) of each cue, as they stand in the file."""
    blocks: list[tuple[float, float, list[str]]] = []
    text: list[str] = []  # of the cue being read; before the first one, what is written there
    in_comment = False
    before, before_that = "", ""
    for line in lines:
        if times := _TIMES.match(line):
            # The line above names the cue, if it stands alone or is a number.
            if before and text and not in_comment and (not before_that or before.strip().isdigit()):
                text.pop()
            start_seconds, end_seconds = _seconds(*times.groups()[:3]), _seconds(*times.groups()[3:])
            text, in_comment = [], False
            blocks.append((start_seconds, max(start_seconds, end_seconds), text))
        elif not line:
            in_comment = False
        elif not before and _COMMENT.match(line):
            in_comment = True
        elif not in_comment:
            text.append(line)  # after a blank line too: some files have them amid the text
        before, before_that = line, before
    return blocks


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


def _said_once(blocks: Sequence[tuple[float, float, list[str]]]) -> list[Cue]:
    """Cues of cleaned blocks in time order, without lines that the cue before still showed."""
    cues: list[Cue] = []
    shown: list[str] = []
    shown_until_seconds = 0.0
    for start_seconds, end_seconds, raw_lines in blocks:
        lines = [line for line in map(_clean, raw_lines) if line]
        if not lines:
            continue
        repeated = 0
        if start_seconds <= shown_until_seconds + _TOUCHING_SECONDS:
            most = min(len(lines), len(shown))
            repeated = next((n for n in range(most, 0, -1) if shown[-n:] == lines[:n]), 0)
        if repeated < len(lines):
            cues.append(Cue(start_seconds, end_seconds, " ".join(lines[repeated:])))
        elif end_seconds > cues[-1].end_seconds:
            cues[-1] = replace(cues[-1], end_seconds=end_seconds)
        shown, shown_until_seconds = lines, max(shown_until_seconds, end_seconds)
    return cues


def _clean(line: str) -> str:
    return " ".join(html.unescape(_MARKUP.sub("", line)).split())
