"""Runs the checks in their order, and remembers which check dropped what."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.across import blind, guessing, longest, yes_no
from hourllava.synthesis.checks.verifying import verified
from hourllava.synthesis.checks.within import Dropped, contradictions, duplicates
from hourllava.synthesis.checks.words import WORD_CHECKS
from hourllava.synthesis.settings import CheckSettings

CHECKS = (*WORD_CHECKS, "duplicates", "contradictions", "verifier", "guessing", "blind", "longest", "yes_no")
"""Names of all checks, in their order; each is a setting."""


@dataclass
class Ledger:
    """What was dropped.

    Attributes:
        dropped: question id -> (check, reason).
        counts: check -> number.
        by_task: task -> check -> number.
    """

    dropped: dict[str, tuple[str, str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    by_task: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def take_out(self, check: str, found: Dropped, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Note what a check found; the rest goes on."""
        for candidate in candidates:
            if candidate.id in found:
                self.dropped[candidate.id] = (check, found[candidate.id])
                self.counts[check] += 1
                self.by_task[candidate.task][check] += 1
        return [candidate for candidate in candidates if candidate.id not in found]


def check_video(candidates: Sequence[Candidate], settings: CheckSettings, ledger: Ledger) -> list[Candidate]:
    """The checks that need no model and only one video: its questions that pass."""
    left = list(candidates)
    for name, check in WORD_CHECKS.items():
        if getattr(settings, name):
            reasons = {candidate.id: check(candidate, settings.script) for candidate in left}
            left = ledger.take_out(name, {id_: reason for id_, reason in reasons.items() if reason}, left)
    if settings.duplicates:
        left = ledger.take_out("duplicates", duplicates(left, settings.near_duplicate), left)
    if settings.contradictions:
        left = ledger.take_out("contradictions", contradictions(left), left)
    return left


def check_all(
    candidates: Sequence[Candidate],
    verdicts: Mapping[str, Mapping[str, Any] | None] | None,
    settings: CheckSettings,
    seed: int,
    ledger: Ledger,
) -> list[Candidate]:
    """The checks over the whole data set: the questions that pass.

    Args:
        candidates: that passed `check_video`, of all videos in order.
        verdicts: question id -> what the verifier said; None: there was no verifier.
        settings, seed: of the run.
        ledger: gets what is dropped.
    """
    left = list(candidates)
    if settings.verifier and verdicts is not None:
        left = ledger.take_out("verifier", verified(left, verdicts), left)
    if settings.guessing and verdicts is not None:
        guesses = {id_: verdict.get("guessed", ()) for id_, verdict in verdicts.items() if verdict is not None}
        left = ledger.take_out("guessing", guessing(left, guesses), left)
    if settings.blind:
        left = ledger.take_out("blind", blind(left, seed), left)
    if settings.longest:
        left = ledger.take_out("longest", longest(left, seed), left)
    if settings.yes_no:
        left = ledger.take_out("yes_no", yes_no(left, seed), left)
    return left
