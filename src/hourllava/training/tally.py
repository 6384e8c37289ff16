"""What a run has drawn, left out and learnt from so far, over all processes: nothing learnt is no success."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hourllava.data.batches.loader import NO_TARGET, Allowance, merge_ledgers, read_ledgers
from hourllava.errors import DataError, TrainingError

_JUDGED_DRAWS = 256
"""After so many draws, or an epoch, without anything to learn from there will be nothing."""


@dataclasses.dataclass
class Tally:
    """Counts of all processes since the run began, also before it was stopped.

    Attributes:
        drawn: samples of the plan.
        failed: of them, could not be read.
        untaught: of them, have no supervised token.
        empty_steps: steps of which nothing was left; they change no weight.
        learnt: weight of all supervised tokens, their number unless they are weighted.
    """

    drawn: int = 0
    failed: int = 0
    untaught: int = 0
    empty_steps: int = 0
    learnt: float = 0.0

    @classmethod
    def restored(cls, stored: Any) -> "Tally":
        """From what a checkpoint has kept; of one that older versions wrote only that something was learnt."""
        if not isinstance(stored, Mapping):
            return cls(learnt=1.0)
        return cls(**{name: stored[name] for name in (field.name for field in dataclasses.fields(cls))})

    @property
    def skipped(self) -> int:
        """Draws that were left out."""
        return self.failed + self.untaught

    def add(self, drawn: float, failed: float, untaught: float, learnt: float) -> bool:
        """Count a step; whether it teaches anything."""
        self.drawn += round(drawn)
        self.failed += round(failed)
        self.untaught += round(untaught)
        self.learnt += learnt
        self.empty_steps += learnt == 0
        return learnt > 0

    def check(self, allowance: Allowance, ledger_folder: Path, *, is_last_step: bool) -> None:
        """End a run that learns nothing, or too little of what it is given; before weights are touched or written.

        Args:
            allowance: how many samples may fail.
            ledger_folder: where they are noted.
            is_last_step: whether nothing is to come.

        Raises:
            DataError: more samples failed than are allowed.
            TrainingError: no sample so far had a supervised token.
        """
        if self.learnt == 0 and (is_last_step or self.drawn >= min(allowance.samples_per_epoch, _JUDGED_DRAWS)):
            raise TrainingError(
                f"there is nothing to learn from: of {self.drawn} samples {self.failed} could not be read and "
                f"{self.untaught} have no supervised token{_first_of(ledger_folder)}. The weights were not touched"
            )
        if self.failed > allowance.most(self.drawn):
            raise DataError(
                f"{self.failed} of {self.drawn} samples could not be read, more than data.max_failed_share="
                f"{allowance.share:g} allows{_first_of(ledger_folder)}"
            )


def describe_skipped(ledger_folder: Path) -> str | None:
    """A line about what a run has left out, of all processes together; None if that is nothing.

    What the processes have noted is merged into one file for it.
    """
    if not any(ledger_folder.glob("failures.rank*.jsonl")):
        return None
    draws = merge_ledgers(ledger_folder)
    untaught = {(failure.stream, failure.sample) for failure in draws if failure.error == NO_TARGET}
    failed = {(failure.stream, failure.sample) for failure in draws if failure.error != NO_TARGET}
    return (
        f"skipped: {len(failed)} samples could not be read, {len(untaught)} had no supervised token; they were drawn "
        f"{len(draws)} times; {ledger_folder / 'failures.jsonl'} lists them"
    )


def _first_of(ledger_folder: Path) -> str:
    noted = read_ledgers(ledger_folder)
    if not noted:
        return ""
    first = noted[0]
    return (
        f"; the first is sample {first.sample} of {first.stream}: {first.error}: {first.message}; all are listed in "
        f"{ledger_folder}"
    )
