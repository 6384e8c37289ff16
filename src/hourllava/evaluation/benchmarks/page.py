"""Every question of a run in one HTML file: options, answer, moments and evidence. Nothing is loaded from elsewhere."""

import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from hourllava.choices import LETTERS
from hourllava.clock import format_clock
from hourllava.evaluation.benchmarks.scoring import Scored
from hourllava.evaluation.intervals import Interval

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #22283a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
header { position: sticky; top: 0; background: #fff; padding: .5rem 0; border-bottom: 1px solid #e4e7ec; }
input, select { font: inherit; padding: .2rem .4rem; }
details { border-bottom: 1px solid #e4e7ec; padding: .35rem 0; }
summary { cursor: pointer; }
.right > summary::after { content: " right"; color: #188040; }
.wrong > summary::after { content: " wrong"; color: #be2832; }
.none > summary::after { content: " not scored"; color: #6b7280; }
.gold { font-weight: 600; }
.chosen { text-decoration: underline; }
small, dt { color: #6b7280; }
dd { margin: 0 0 .4rem 1rem; white-space: pre-wrap; }
"""
_SCRIPT = """
const words = document.getElementById("words"), kind = document.getElementById("kind"),
      shown = document.getElementById("shown"), items = [...document.querySelectorAll("details")];
function filter() {
  const wanted = words.value.toLowerCase();
  let count = 0;
  for (const item of items) {
    const isKind = !kind.value || item.classList.contains(kind.value);
    const fits = isKind && item.textContent.toLowerCase().includes(wanted);
    item.hidden = !fits;
    count += fits;
  }
  shown.textContent = count;
}
words.addEventListener("input", filter);
kind.addEventListener("change", filter);
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page_of(title: str, headline: str, scored: Sequence[Scored], data: Path | None) -> Iterator[str]:
    """The page, piece by piece.

    Args:
        title: of the page.
        headline: the score, as a sentence.
        scored: all answers.
        data: the benchmark's data folder; with it, moments are links to the video's file.
    """
    yield (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{_text(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n'
        f"<h1>{_text(title)}</h1>\n<p>{_text(headline.replace('**', ''))}</p>\n"
        '<header><input id="words" type="search" placeholder="words, a video, a group" aria-label="Search"> '
        '<select id="kind" aria-label="Which"><option value="">all</option><option>right</option>'
        '<option>wrong</option><option value="none">not scored</option></select> '
        f'<span id="shown">{len(scored)}</span> of {len(scored)} questions</header>\n<main>\n'
    )
    for one in scored:
        yield _item(one, data)
    yield f"</main>\n<script>{_SCRIPT}</script>\n</html>\n"


def _item(one: Scored, data: Path | None) -> str:
    question = one.question
    kind = "none" if one.right is None else "right" if one.right else "wrong"
    groups = ", ".join(group for groups in question.groups.values() for group in groups)
    file = None if data is None or question.file is None else data / question.file
    rows = [
        ("options", _options(one)),
        ("published answer", "" if question.gold_letter else _text(question.gold or "not public")),
        ("the model's text", _text(one.raw.output)),
        ("read as", _text(one.answer) + ("" if one.how == "read" else f" ({one.how})")),
        ("letters", _probabilities(one)),
        ("shown at", _moments(question.moments, file)),
        ("the model looked at", _moments(one.raw.evidence, file)),
        ("video", _text(f"{question.video}, {format_clock(one.raw.duration_seconds)}, {one.raw.num_frames} frames")),
        ("subtitles", "in the prompt" if one.raw.had_subtitles else ""),
        ("groups", _text(groups)),
    ]  # fmt: skip
    shown = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)
    summary = f"<summary><small>{_text(question.id)}</small> {_text(question.question)}</summary>"
    return f'<details class="{kind}">{summary}<dl>{shown}</dl></details>\n'


def _options(one: Scored) -> str:
    lines = []
    for k, option in enumerate(one.question.options):
        letter = LETTERS[k]
        classes = " ".join(
            name for name, holds in (("gold", k == one.question.gold_index), ("chosen", letter == one.answer)) if holds
        )
        line = f"{letter}. {_text(option)}"
        lines.append(f'<span class="{classes}">{line}</span>' if classes else line)
    return "\n".join(lines)


def _probabilities(one: Scored) -> str:
    pairs = zip(LETTERS, one.raw.log_probabilities)
    return ", ".join(f"{letter} {math.exp(value):.2f}" for letter, value in pairs)


def _moments(moments: Sequence[Interval], file: Path | None) -> str:
    return ", ".join(_moment(start, end, file) for start, end in moments)


def _moment(start: float, end: float, file: Path | None) -> str:
    words = f"{format_clock(start)}-{format_clock(end)}"
    if file is None:
        return words
    return f'<a href="{_text(quote(str(file)))}#t={start:g},{end:g}">{words}</a>'


def _text(text: str) -> str:
    return html.escape(text, quote=True)
