"""Subtitles (.srt, .vtt) as text of a prompt, trimmed to a token budget around the moments that matter.

Both formats are read by one tolerant pass over the lines: what files in the wild share is a line with two times, text
below it, and blank lines or comments between. The libraries we looked at refuse files that players show (webvtt-py:
.srt without numbers or hours) or take comments for speech (pysubs2: NOTE blocks of .vtt), and cleaning the text would
still be ours.

    cues = read_subtitles("lecture.srt")
    text = subtitles_prompt(cues, [(610.0, 640.0)], 2000, lambda texts: [len(tokenizer.encode(t)) for t in texts])

Times are on the player's clock, like evidence.
"""

import html
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hourllava.clock import format_clock
from hourllava.errors import DataError
from hourllava.inference.subtitle_text import read_text

_ARROW = re.compile(r"-{1,3} ?>|[\u2013\u2014] ?>|\u2192")  # "-->" as programs and people write it
_TIME = re.compile(r"\s*(-?)([0-9]{1,6}(?: ?: ?-?[0-9]{1,3}){1,3})(?: ?[.,;] ?([0-9]+))?(?![0-9:])")
_LIKE_A_TIME = re.compile(r"[-+0-9:;.,\s]+")
_COMMENT = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_MARKUP = re.compile(r"</?[A-Za-z0-9][^<>]*>|\{\\[^{}]*\}")  # <i>, </c>, <v Ann>, <00:01.500>, {\an8}
_HUGE_ENTITY = re.compile(r"&#[0-9]{8,};?")  # Unicode ends at 7 digits, html.unescape fails above 4,300

# Cues this close are one stretch of speech: rolling captions leave gaps of 10 ms.
_TOUCHING_SECONDS = 0.05

# A line with more characters for each allowed token is left out uncounted: to count 20 MB takes a minute.
_MAX_CHARACTERS_PER_TOKEN = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cue:
    """One subtitle: when a player shows it and what it says, on one line without markup."""

    start_seconds: float
    end_seconds: float
    text: str


def read_subtitles(path: str | os.PathLike[str], encoding: str | None = None) -> list[Cue]:
    """The cues of a .srt or .vtt file in time order.

    Captions that roll (each cue repeats the lines before it) or are doubled are merged, so that everything is said
    once. A cue that starts before 0 is kept from 0. A cue of which only one time can be read starts and ends there.
    Cues without any time, or over before 0, are left out; a warning in the log counts them.

    Args:
        path: up to `subtitle_text.MAX_SUBTITLE_BYTES`.
        encoding: of the file, as Python names it; None finds it out, see `subtitle_text.decode_text`.

    Raises:
        DataError: the file is missing, unreadable or too large, of another kind or encoding, or holds no subtitles.
        ConfigError: there is no such encoding.
    """
    path = Path(path)
    if path.suffix.lower() not in (".srt", ".vtt"):
        raise DataError(f"{path} is no subtitle file; give a .srt or .vtt file")
    text = read_text(path, encoding)
    # Only these end a line: str.splitlines also cuts at U+0085 and others. CR CR LF is a CR LF written as text again.
    lines = text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blocks, num_unread = _timed_blocks(lines)
    if not blocks and not text.startswith("WEBVTT"):
        raise DataError(f"{path} holds no subtitles: no line such as 00:00:01,000 --> 00:00:02,500 was found")
    shown = [block for block in blocks if block[1] > 0 or block[0] >= 0]
    if num_left_out := num_unread + len(blocks) - len(shown):
        _log.warning("%s: %d cues are left out, their times cannot be read or end before 0", path, num_left_out)
    from_zero = [(max(start, 0.0), max(end, 0.0), lines) for start, end, lines in shown]
    return _said_once(sorted(from_zero, key=lambda block: block[0]))


def subtitles_prompt(
    cues: Sequence[Cue],
    spans: Sequence[tuple[float, float]],
    max_tokens: int,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
) -> str:
    """Subtitles as lines `[h:mm:ss] text` in time order: all of them if they fit, else those nearest to the spans.

    Args:
        cues: as read.
        spans: (start_seconds, end_seconds) of the moments that matter; without any, the earliest cues come first.
        max_tokens: the most tokens the text may take.
        count_tokens: of each of some texts.

    Returns:
        Lines without a newline at the end; "" if there are no cues or none fits.
    """
    short = [cue for cue in cues if len(cue.text) <= _MAX_CHARACTERS_PER_TOKEN * max_tokens]
    chosen = sorted(short, key=lambda cue: cue.start_seconds)
    if not chosen:
        return ""
    counts = count_tokens([_lines([cue]) + "\n" for cue in chosen])
    # The last newline is not part of the text, and a tokenizer may join the others to what follows.
    may_fit = len(chosen) == len(cues) and sum(counts) - len(counts) <= max_tokens
    if may_fit and count_tokens([_lines(chosen)])[0] <= max_tokens:
        return _lines(chosen)
    distances = [min((_distance(cue, span) for span in spans), default=0.0) for cue in chosen]
    near, tokens_left = [], max_tokens
    for n in sorted(range(len(chosen)), key=distances.__getitem__):
        if counts[n] <= tokens_left:
            near.append(chosen[n])
            tokens_left -= counts[n]
    # A tokenizer may need more for the whole than for its lines: the budget holds for the whole.
    while near and count_tokens([_lines(near)])[0] > max_tokens:
        near.pop()
    return _lines(near)


def _lines(cues: Sequence[Cue]) -> str:
    in_order = sorted(cues, key=lambda cue: cue.start_seconds)
    return "\n".join(f"[{format_clock(cue.start_seconds)}] {cue.text}" for cue in in_order)


def _distance(cue: Cue, span: tuple[float, float]) -> float:
    return max(0.0, span[0] - cue.end_seconds, cue.start_seconds - span[1])


def _timed_blocks(lines: Sequence[str]) -> tuple[list[tuple[float, float, list[str]]], int]:
    """(start_seconds, end_seconds, lines of text) of each cue as they stand in the file, and how many had no time."""
    blocks: list[tuple[float, float, list[str]]] = []
    num_unread = 0
    text: list[str] = []  # of the cue being read; before the first one, what is written there
    in_comment = False
    before, before_that = "", ""
    for line in lines:
        if (times := _timing(line)) is not None:
            # The line above names the cue, if it stands alone or is a number.
            if before and text and not in_comment and (not before_that or before.strip().isdigit()):
                text.pop()
            text, in_comment = [], False
            if times:
                blocks.append((times[0], max(times), text))
            else:
                num_unread += 1
        elif not line:
            in_comment = False
        elif not before and _COMMENT.match(line):
            in_comment = True
        elif not in_comment:
            text.append(line)  # after a blank line too: some files have them amid the text
        before, before_that = line, before
    return blocks, num_unread


def _timing(line: str) -> list[float] | None:
    """The times that can be read, two in a whole timing line; None for a line of another kind."""
    arrow = _ARROW.search(line)
    if arrow is None:
        return None
    left = line[: arrow.start()].rstrip()
    if ":" not in left or not _LIKE_A_TIME.fullmatch(left):
        return None
    sides = (_TIME.fullmatch(left), _TIME.match(line, arrow.end()))  # settings may follow the second time
    times = [_seconds(*side.groups()) for side in sides if side is not None]
    # "12:30 -> 13:00" may be speech: other arrows need two times, with hours or fractions.
    is_exact = left.count(":") > 1 or "." in left or "," in left
    return times if arrow[0] == "-->" or (len(times) == 2 and is_exact) else None


def _seconds(sign: str, clock: str, fraction: str | None) -> float:
    """Seconds of `1:02:03` or `02:03`, with `:500` behind it instead of a fraction too.

    A minus inside is a slip of the program that wrote it, and ignored. Two digits behind a third colon are frames of an
    unknown rate, less than a second.
    """
    parts = [part.strip(" -") for part in clock.split(":")]
    if len(parts) > 2 and len(parts[-1]) == 3 and fraction is None:
        fraction = parts.pop()
    seconds = 0.0
    for part in parts[:3]:
        seconds = seconds * 60 + int(part)
    return (-1 if sign else 1) * (seconds + float(f"0.{fraction or 0}"))


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
    return " ".join(html.unescape(_HUGE_ENTITY.sub("\ufffd", _MARKUP.sub("", line))).split())
