"""Subtitles (.srt, .vtt) as text of a prompt, trimmed to a token budget around the moments that matter.

One tolerant pass over the lines reads both formats: a line with two times, text below it, blank lines or comments in
between. Libraries are stricter or less exact: webvtt-py refuses .srt files without numbers or hours, which players
show; pysubs2 takes NOTE blocks of .vtt files for speech; neither cleans the text as a prompt needs it.

    cues = read_subtitles("lecture.srt")
    lines = SubtitleLines(cues, 2000, lambda texts: [len(tokenizer.encode(text)) for text in texts])
    text = lines.near([(610.0, 640.0)])

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
from hourllava.inference.questions.subtitle_text import read_text

_ARROW = re.compile(r"-{1,3} ?>|[\u2013\u2014] ?>|\u2192")  # "-->" and its variants in real files
_TIME = re.compile(r"\s*(-?)([0-9]{1,6}(?: ?: ?-?[0-9]{1,3}){1,3})(?: ?[.,;] ?([0-9]+))?(?![0-9:])")
_LIKE_A_TIME = re.compile(r"[-+0-9:;.,\s]+")
_COMMENT = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_MARKUP = re.compile(r"</?[A-Za-z0-9][^<>]*>|\{\\[^{}]*\}")  # <i>, </c>, <v Ann>, <00:01.500>, {\an8}
_HUGE_ENTITY = re.compile(r"&#[0-9]{8,};?")  # Unicode ends at 7 digits; html.unescape fails above 4,300 digits

# Cues with a smaller gap are one stretch of speech: rolling captions leave gaps of 10 ms.
_TOUCHING_SECONDS = 0.05

# A cue with more characters per allowed token is dropped without counting: counting 20 MB takes a minute.
_MAX_CHARACTERS_PER_TOKEN = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cue:
    """One subtitle.

    Attributes:
        start_seconds, end_seconds: when a player shows it.
        text: on one line, without markup.
    """

    start_seconds: float
    end_seconds: float
    text: str


def read_subtitles(path: str | os.PathLike[str], encoding: str | None = None) -> list[Cue]:
    """Read the cues of a .srt or .vtt file, in time order.

        cues = read_subtitles("lecture.srt")
        answer = model.ask(memory, "What does she say about entropy?", subtitles=cues)

    Rolling captions (each cue repeats the lines before it) and doubled cues are merged, so every line comes once. A cue
    that starts before 0 starts at 0. A cue with one readable time starts and ends there. Cues without a readable time
    and cues that end before 0 are dropped; a warning in the log counts them.

    Args:
        path: of a file of at most 16 MiB.
        encoding: by Python's name, such as `windows-1251`; by default it is detected: UTF-8, UTF-16, UTF-32 or
            windows-1252.

    Raises:
        DataError: the file is missing, unreadable, too large, of another kind or encoding, or holds no subtitles.
        ConfigError: there is no such encoding.
    """
    path = Path(path)
    if path.suffix.lower() not in (".srt", ".vtt"):
        raise DataError(f"{path} is no subtitle file; give a .srt or .vtt file")
    return parse_subtitles(read_text(path, encoding), str(path))


def parse_subtitles(text: str, name: str) -> list[Cue]:
    """The cues in the text of a .srt or .vtt file, as `read_subtitles` gives them.

    Args:
        text: of the file.
        name: of the file, for messages.

    Raises:
        DataError: it holds no subtitles.
    """
    # Not str.splitlines, which also cuts at U+0085 and others. CR CR LF comes from writing CR LF in text mode.
    lines = text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blocks, num_unread = _timed_blocks(lines)
    if not blocks and not text.startswith("WEBVTT"):
        raise DataError(f"{name} holds no subtitles: no line such as 00:00:01,000 --> 00:00:02,500 was found")
    shown = [block for block in blocks if block[1] > 0 or block[0] >= 0]
    if num_left_out := num_unread + len(blocks) - len(shown):
        _log.warning("%s: %d cues are left out, their times cannot be read or end before 0", name, num_left_out)
    from_zero = [(max(start, 0.0), max(end, 0.0), lines) for start, end, lines in shown]
    return _said_once(sorted(from_zero, key=lambda block: block[0]))


class SubtitleLines:
    """Subtitles as lines `[h:mm:ss] text` of prompts with one token budget. Tokens are counted once, for all questions.

    Args:
        cues: from `read_subtitles`.
        max_tokens: budget of the text.
        count_tokens: gives the number of tokens of each text.

    Attributes:
        whole: all lines, without a newline at the end; None if they do not fit.
    """

    def __init__(
        self, cues: Sequence[Cue], max_tokens: int, count_tokens: Callable[[Sequence[str]], Sequence[int]]
    ) -> None:
        short = [cue for cue in cues if len(cue.text) <= _MAX_CHARACTERS_PER_TOKEN * max_tokens]
        self._cues = sorted(short, key=lambda cue: cue.start_seconds)
        self._max_tokens, self._count_tokens = max_tokens, count_tokens
        self._counts = count_tokens([_lines([cue]) + "\n" for cue in self._cues]) if self._cues else []
        # Newlines do not count here: the last is not part of the text, and a tokenizer may join one to the next line.
        may_fit = len(short) == len(cues) and sum(self._counts) - len(self._counts) <= max_tokens
        self.whole = _lines(self._cues) if may_fit and self._fits(self._cues) else None

    def near(self, spans: Sequence[tuple[float, float]]) -> str:
        """All lines if they fit, else those nearest to the spans, in time order.

        Args:
            spans: (start_seconds, end_seconds) of the moments that matter; without spans, the earliest cues are taken.

        Returns:
            lines without a newline at the end; "" if no cue fits.
        """
        if self.whole is not None:
            return self.whole
        distances = [min((_distance(cue, span) for span in spans), default=0.0) for cue in self._cues]
        near, tokens_left = [], self._max_tokens
        for n in sorted(range(len(self._cues)), key=distances.__getitem__):
            if self._counts[n] <= tokens_left:
                near.append(self._cues[n])
                tokens_left -= self._counts[n]
        # The budget holds for the whole text, which may have more tokens than its lines.
        while near and not self._fits(near):
            near.pop()
        return _lines(near)

    def _fits(self, cues: Sequence[Cue]) -> bool:
        return not cues or self._count_tokens([_lines(cues)])[0] <= self._max_tokens


def _lines(cues: Sequence[Cue]) -> str:
    in_order = sorted(cues, key=lambda cue: cue.start_seconds)
    return "\n".join(f"[{format_clock(cue.start_seconds)}] {cue.text}" for cue in in_order)


def _distance(cue: Cue, span: tuple[float, float]) -> float:
    return max(0.0, span[0] - cue.end_seconds, cue.start_seconds - span[1])


def _timed_blocks(lines: Sequence[str]) -> tuple[list[tuple[float, float, list[str]]], int]:
    """(start_seconds, end_seconds, lines) of each cue, in the order of the file, and how many cues have no time."""
    blocks: list[tuple[float, float, list[str]]] = []
    num_unread = 0
    text: list[str] = []  # of the current cue; at first, the lines before the first cue
    in_comment = False
    before, second_before = "", ""
    for line in lines:
        if (times := _timing(line)) is not None:
            # The line above is the cue's name if it stands alone or is a number.
            if before and text and not in_comment and (not second_before or before.strip().isdigit()):
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
            text.append(line)  # also after a blank line: some files have blank lines inside a cue
        before, second_before = line, before
    return blocks, num_unread


def _timing(line: str) -> list[float] | None:
    """The readable times of a timing line, two if it is whole; None for any other line."""
    arrow = _ARROW.search(line)
    if arrow is None:
        return None
    left = line[: arrow.start()].rstrip()
    if ":" not in left or not _LIKE_A_TIME.fullmatch(left):
        return None
    sides = (_TIME.fullmatch(left), _TIME.match(line, arrow.end()))  # settings may follow the second time
    times = [_seconds(*side.groups()) for side in sides if side is not None]
    # "12:30 -> 13:00" may be speech, so other arrows than --> need two times, with hours or fractions.
    is_exact = left.count(":") > 1 or "." in left or "," in left
    return times if arrow[0] == "-->" or (len(times) == 2 and is_exact) else None


def _seconds(sign: str, clock: str, fraction: str | None) -> float:
    """Seconds of `1:02:03` or `02:03`; `:500` may stand in place of a fraction.

    A minus inside is ignored as a slip of the writing program. Two digits after a third colon are frames of an unknown
    rate, less than a second, and ignored too.
    """
    parts = [part.strip(" -") for part in clock.split(":")]
    if len(parts) > 2 and len(parts[-1]) == 3 and fraction is None:
        fraction = parts.pop()
    seconds = 0.0
    for part in parts[:3]:
        seconds = seconds * 60 + int(part)
    return (-1 if sign else 1) * (seconds + float(f"0.{fraction or 0}"))


def _said_once(blocks: Sequence[tuple[float, float, list[str]]]) -> list[Cue]:
    """Cues with cleaned text. Lines that the cue before still showed are dropped."""
    cues: list[Cue] = []
    shown: list[str] = []
    shown_until_seconds = 0.0
    for start_seconds, end_seconds, raw_lines in blocks:
        lines = [line for line in map(_clean, raw_lines) if line]
        if not lines:
            continue
        repeated = 0
        if start_seconds <= shown_until_seconds + _TOUCHING_SECONDS:
            longest = min(len(lines), len(shown))
            repeated = next((n for n in range(longest, 0, -1) if shown[-n:] == lines[:n]), 0)
        if repeated < len(lines):
            cues.append(Cue(start_seconds, end_seconds, " ".join(lines[repeated:])))
        elif end_seconds > cues[-1].end_seconds:
            cues[-1] = replace(cues[-1], end_seconds=end_seconds)
        shown, shown_until_seconds = lines, max(shown_until_seconds, end_seconds)
    return cues


def _clean(line: str) -> str:
    return " ".join(html.unescape(_HUGE_ENTITY.sub("\ufffd", _MARKUP.sub("", line))).split())
