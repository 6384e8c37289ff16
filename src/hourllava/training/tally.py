"""How many samples a run has drawn, skipped and learnt from, over all processes. A run that learns nothing fails."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hourllava.data.batches.loader import NO_TARGET, Allowance, merge_ledgers, read_ledgers
from hourllava.errors import DataError, TrainingError

_JUDGED_DRAWS = 256
"""A run fails after this many draws, or an epoch, without a supervised token."""


@dataclasses.dataclass
class Tally:
    """Counts of all processes since the run's first start.

    Attributes:
        drawn: draws from the plan.
        failed: draws that could not be read.
        untaught: draws without a supervised token.
        empty_steps: steps without any sample; they change no weight.
        learnt: total weight of the supervised tokens; their number unless they are weighted.
    """

    drawn: int = 0
    failed: int = 0
    untaught: int = 0
    empty_steps: int = 0
    learnt: float = 0.0

    @classmethod
    def restored(cls, stored: Any) -> "Tally":
        """The tally in a checkpoint. An older version kept none; then only `learnt` is above 0."""
        if not isinstance(stored, Mapping):
            return cls(learnt=1.0)
        return cls(**{name: stored[name] for name in (field.name for field in dataclasses.fields(cls))})

    @property
    def skipped(self) -> int:
        """Number of skipped draws."""
        return self.failed + self.untaught

    def add(self, drawn: float, failed: float, untaught: float, learnt: float) -> bool:
        """Count a step, and return whether it has anything to learn from."""
        self.drawn += round(drawn)
        self.failed += round(failed)
        self.untaught += round(untaught)
        self.learnt += learnt
        self.empty_steps += learnt == 0
        return learnt > 0

    def check(self, allowance: Allowance, ledger_folder: Path, *, is_last_step: bool) -> None:
        """End a run that learns nothing or skips too much, before its weights are changed or written.

        Args:
            allowance: how many samples may fail.
            ledger_folder: folder of the ledgers.
            is_last_step: whether this is the last step.

        Raises:
            DataError: more samples failed than are allowed.
            TrainingError: no sample so far had a supervised token.
        """
        if self.learnt == 0 and (is_last_step or self.drawn >= min(allowance.samples_per_epoch, _JUDGED_DRAWS)):
            raise TrainingError(
                f"there is nothing to learn from: of {self.drawn} samples {self.failed} could not be read and "
                f"{self.untaught} have no supervised token{_first_of(ledger_folder)}. The weights were not changed"
            )
        if self.failed > allowance.most(self.drawn):
            raise DataError(
                f"{self.failed} of {self.drawn} samples could not be read, more than data.max_failed_share="
                f"{allowance.share:g} allows{_first_of(ledger_folder)}"
            )


def describe_skipped(ledger_folder: Path) -> str | None:
    """A line about the skipped samples of all processes; None if there are none.

    Merges the ledgers of all processes into one file.
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
