"""Stage `checks`: what models that did not write a question say about it.

A verifier sees the evidence alone: captions of the events and clips that the writer named. It chooses among the
options, with "none of these" and "several of these" beside them, each time in another order; an open question it
answers itself, and compares. It errs, too, so one answer decides nothing: it is asked until it has agreed with the
writer twice, or objected twice. With one answer in ten wrong by chance, that takes 2.2 answers and loses 3 % of the
right questions; a demand for two agreements in a row takes 1.9 and loses 19 %.

The same model guesses multiple choice without any data, under three orders: a task in which that pays is thinned out
later.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from hourllava.choices import LETTERS
from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.verifying import is_decided
from hourllava.synthesis.events import Writer
from hourllava.synthesis.models.request import Request
from hourllava.synthesis.prompting import data_block
from hourllava.synthesis.questions import SUMMARY_TASK, Told
from hourllava.synthesis.rows import RowFile, digest
from hourllava.synthesis.shapes import Letter, Verdict
from hourllava.synthesis.stage import Item
from hourllava.synthesis.times import clock

STAGE = "checks"
MAX_PARTS = 6  # of evidence; more are told by their events alone
NONE, SEVERAL = "none of these", "several of these"
_LETTER = re.compile(r"\W*([A-Za-z])\b")


class VerdictStage:
    """Asks the verifier about questions.

    Args:
        verifier: its model, prompts and settings.
    """

    def __init__(self, verifier: Writer) -> None:
        self._verifier = verifier
        self._checks = verifier.settings.checks
        self._makers = {
            kind: verifier.maker(
                STAGE,
                kind,
                0.0,
                guess=verifier.prompts["guess"].digest,
                agreements=self._checks.agreements if self._checks.verifier else 0,
                objections=self._checks.objections if self._checks.verifier else 0,
                later_temperature=verifier.settings.sampling.verify_temperature,
                guesses=self._checks.guesses if self._checks.guessing else 0,
            )
            for kind in ("verify_choice", "verify_open")
        }

    def items(self, told: Told, candidates: Sequence[Candidate]) -> Iterator[Item]:
        """An item for each question that can be checked; a summary has no evidence but the whole video."""
        for candidate in candidates:
            if candidate.task == SUMMARY_TASK:
                continue
            requests = self._requests(told, candidate)
            if requests:
                maker = self._makers[f"verify_{candidate.format}"]
                key = digest(maker, [(request.kind, request.system, request.text) for request, _ in requests])
                yield Item(candidate.id, key, maker, (candidate, requests))

    def verdict_of(self, item: Item, rows: RowFile) -> dict[str, Any] | None:
        """What was said about a question; None if the verifier failed."""
        row = rows.get(item.key)
        return row.value if row is not None else None

    async def work(self, item: Item) -> dict[str, Any]:
        """The verdicts about a question, which is asked about until it is decided.

        Lists: `verified` and `guessed` of options, NONE or SEVERAL; `open` of verdicts. Empty ones are left out.
        """
        candidate, requests = item.input
        found: dict[str, list[Any]] = {"verified": [], "open": [], "guessed": []}
        for request, options in requests:
            if request.kind == "guess":
                found["guessed"].append(await self._choice(request, item, options))
            elif is_decided(candidate, found, self._checks):
                continue
            elif request.kind == "verify_choice":
                found["verified"].append(await self._choice(request, item, options))
            else:
                verdict = await self._verifier.asker.ask(request, item.id, Verdict)
                found["open"].append(verdict.model_dump())
        return {name: answers for name, answers in found.items() if answers}

    async def _choice(self, request: Request, item: Item, options: Sequence[str]) -> str:
        """The option that the verifier chooses."""

        def chosen(answer: Letter) -> str:
            return option_of(answer.letter, options)

        return chosen(await self._verifier.asker.ask(request, item.id, Letter, check=chosen))

    def _requests(self, told: Told, candidate: Candidate) -> list[tuple[Request, Sequence[str]]]:
        """The requests about a question, each with its options: as many as it may take to decide."""
        requests: list[tuple[Request, Sequence[str]]] = []
        most = self._checks.agreements + self._checks.objections - 1 if self._checks.verifier else 0
        for k in range(most):
            if candidate.format == "choice":
                options = [*candidate.rotated_options("verify", k), NONE, SEVERAL]
                requests.append((self._verification(told, candidate, "verify_choice", Letter, options), options))
            else:
                request = self._verification(told, candidate, "verify_open", Verdict, [])
                temperature = self._verifier.settings.sampling.verify_temperature if k else 0.0
                requests.append((replace(request, seed=request.seed + k, temperature=temperature), []))
        if self._checks.guessing and candidate.format == "choice":
            for k in range(self._checks.guesses):
                options = candidate.rotated_options("guess", k)
                question = data_block("question", [{"question": candidate.question}])
                values = {"question": question, "options": _lettered(options)}
                requests.append((self._verifier.request("guess", Letter, 0.0, **values), options))
        return requests

    def _verification(
        self, told: Told, candidate: Candidate, kind: str, shape: type[Any], options: Sequence[str]
    ) -> Request:
        asked = {"question": candidate.question}
        if candidate.format == "open":
            asked["proposed_answer"] = candidate.answer
        events, parts = evidence_lines(told, candidate)
        values: dict[str, Any] = {
            "duration": clock(told.planned.duration_seconds),
            "events": data_block("events", events),
            "clips": data_block("parts", parts) if parts else "",
            "question": data_block("question", [asked]),
        }
        if options:
            values["options"] = _lettered(options)
        return self._verifier.request(kind, shape, 0.0, **values)


def evidence_lines(told: Told, candidate: Candidate) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What a verifier is told: the events in evidence, the titles of their neighbours, and the clips in evidence.

    Without known evidence, all events are told.
    """

    def is_seen(start: float, end: float) -> bool:
        return not candidate.evidence or any(start < until and end > since for since, until in candidate.evidence)

    events = []
    seen_events = [is_seen(*event.span) for event in told.events]
    for k, event in enumerate(told.events):
        line = event.line(k + 1)
        if not seen_events[k]:
            line.pop("caption", None)
        if any(seen_events[max(0, k - 1) : k + 2]):
            events.append(line)
    seen = [c for c in told.captions if candidate.evidence and is_seen(c.clip.start_seconds, c.clip.end_seconds)]
    return events, [captioned.line() for captioned in seen] if len(seen) <= MAX_PARTS else []


def option_of(letter: str, options: Sequence[str]) -> str:
    """The option that a letter means.

    Raises:
        ValueError: it means none.
    """
    match = _LETTER.match(letter)
    number = LETTERS.find(match[1].upper()) if match else -1
    if not 0 <= number < len(options):
        raise ValueError(f"{letter!r:.40} is none of the letters A to {LETTERS[len(options) - 1]}")
    return options[number]


def _lettered(options: Sequence[str]) -> str:
    return data_block("options", [{"letter": letter, "option": option} for letter, option in zip(LETTERS, options)])
