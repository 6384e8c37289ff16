"""Answers that have ended and wait for their evidence, which the device measures beside other work."""

import collections
from collections.abc import Iterator

from hourllava.inference.questions.answers import FinishReason
from hourllava.inference.questions.prompt import launch_together
from hourllava.inference.queues import Pace, Started, Telling


class EndedAnswers:
    """Answers without a row, whose callers are told once their evidence is there. Only one thread may use it.

    Args:
        pace: takes note of each answer.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._new: collections.deque[tuple[Started, FinishReason]] = collections.deque()
        self._measured: collections.deque[tuple[Started, FinishReason]] = collections.deque()  # or about to be

    def __iter__(self) -> Iterator[Started]:
        return (started for started, _ in (*self._measured, *self._new))

    def add(self, started: Started, reason: FinishReason) -> None:
        """Take an answer that has ended."""
        self._new.append((started, reason))

    def clear(self) -> None:
        """Drop all of them."""
        self._new.clear()
        self._measured.clear()

    def finish(self, max_together: int, *, waits: bool) -> None:
        """Begin to measure the evidence of new ones; tell the callers of those whose evidence is there, oldest first.

        Args:
            max_together: answers whose evidence is measured in one pass.
            waits: for the evidence of all; otherwise the others are left for later.
        """
        while self._new:
            some = [self._new.popleft() for _ in range(min(max_together, len(self._new)))]
            with Telling(*(started.question for started, _ in some)):
                launch_together([started.prompt for started, _ in some])
                self._measured.extend(some)
        while self._measured and (waits or self._measured[0][0].prompt.has_evidence):
            started, reason = self._measured.popleft()
            with Telling(started.question):
                started.question.state.finish(reason, started.prompt.evidence())
            self._pace.note_end()
