"""The tables of docs/benchmarks.md from the results of `serve_core.py`, and of `serve_http.py`.

    python benchmarks/serve_table.py docs/benchmarks/2026-11-29-serve-core/output.json
    python benchmarks/serve_table.py docs/benchmarks/2026-11-29-serve-load/output.json

A test compares them with the page.
"""

import json
import sys
from pathlib import Path

from hourllava.evaluation.report import markdown_table

Results = dict[str, dict[str, dict[str, float]]]

FIRST_TOKENS = (
    ("a further question, of a new length", "further question", "new "),
    ("the same, of a length asked before", "further question", "seen "),
    ("each question about the other of two memories", "two memories in turn", ""),
    ("questions while a video is watched", "while watching", ""),
)


def tables(results: Results) -> list[str]:
    """First tokens; many questions at once; everything else."""
    names = {model: model.removeprefix("hourllava-").upper() for model in results}
    first_tokens = [
        [what, *(f"{at[part][kind + 'p50 ms']:.0f} / {at[part][kind + 'p95 ms']:.0f}" for at in results.values())]
        for what, part, kind in FIRST_TOKENS
    ]
    at_once = [
        [
            names[model],
            part.removesuffix(" at once"),
            f"{figures['first of first s']:.2f} s",
            f"{figures['first of last s']:.2f} s",
            f"{figures['all s']:.1f} s",
            f"{figures['answers/s']:.2f}",
            f"{figures['peak GB']:.1f} GB",
        ]
        for model, at in results.items()
        for part, figures in at.items()
        if part.endswith(" at once")
    ]
    others = {
        "first question of all: first token": ["{cold[first s]:.2f} s"],
        "answers of 32 at once that equal those asked one by one, token by token": ["{equal[of 32]:.0f} of 32"],
        "a watched video: alone, beside questions": [
            "{while watching[watch alone s]:.1f} s, {while watching[watch beside s]:.1f} s",
            " ({while watching[slower]:.2f} times)",
        ],
        "from `cancel()` in an answer to its end, to a free device": [
            "{cancel[answer ended ms]:.0f}, {cancel[answer idle ms]:.0f} ms"
        ],
        "from `cancel()` before its first token": ["{cancel[prefill ended ms]:.0f}, {cancel[prefill idle ms]:.0f} ms"],
        "memory: weights; before and after `release()`": [
            "{model[GB]:.1f}; {release[before GB]:.1f}, {release[after GB]:.1f} GB"
        ],
    }
    rest = [[what, *("".join(parts).format(**at) for at in results.values())] for what, parts in others.items()]
    heads = list(names.values())
    return [
        markdown_table(["milliseconds to the first token, median / 95th percentile", *heads], first_tokens),
        markdown_table(
            ["model", "at once", "first token of the first", "of the last", "all answers", "answers/s", "peak memory"],
            at_once,
        ),
        markdown_table(["", *heads], rest),
    ]


def load_table(results: dict[str, dict[str, float]]) -> str:
    """How long clients wait at each rate of questions."""

    def times(figures: dict[str, float], name: str) -> str:
        return " / ".join(f"{figures[f'{name} p{p} ms']:,.0f}" for p in (50, 95, 99)) + " ms"

    rows = [
        [
            part.removeprefix("rate "),
            *(times(figures, name) for name in ("TTFT", "ITL", "E2EL")),
            f"{figures['goodput/s']:.2f} of {figures['answers/s']:.2f}",
            f"{figures['refused'] + figures['unsent']:.0f} of "
            f"{figures['answered'] + figures['refused'] + figures['unsent']:.0f}",
        ]
        for part, figures in results.items()
        if part.startswith("rate ")
    ]
    heads = ["questions a second", "first token", "between tokens", "whole answer", "goodput, answers/s", "refused"]
    return markdown_table(heads, rows)


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    print(load_table(found) if "health" in found else "\n\n".join(tables(found)))
