"""Checks by what the verifier said.

A question is kept after `agreements` agreements with the writer, and dropped after `objections` objections, whichever
comes first. So the last answer is the one that decided.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.within import Dropped
from hourllava.synthesis.questions import SUMMARY_TASK
from hourllava.synthesis.settings import CheckSettings


def opinions(candidate: Candidate, verdict: Mapping[str, Any]) -> list[bool]:
    """Whether each answer of the verifier agrees with the writer, in their order."""
    if candidate.format == "open":
        return [own["verdict"] == "same" for own in verdict.get("open", ())]
    return [option == candidate.answer for option in verdict.get("verified", ())]


def is_decided(candidate: Candidate, verdict: Mapping[str, Any], checks: CheckSettings) -> bool:
    """Whether the verifier need not be asked again about a question."""
    found = opinions(candidate, verdict)
    return sum(found) >= checks.agreements or len(found) - sum(found) >= checks.objections


def agrees(candidate: Candidate, verdict: Mapping[str, Any]) -> bool:
    """Whether the verifier, when it had decided, agreed with the writer."""
    return opinions(candidate, verdict)[-1:] == [True]


def verified(candidates: Sequence[Candidate], verdicts: Mapping[str, Mapping[str, Any] | None]) -> Dropped:
    """Questions on which the verifier does not agree with the writer.

    Args:
        candidates: that remain.
        verdicts: question id -> what the verifier said; None if it failed.
    """
    dropped: Dropped = {}
    for candidate in candidates:
        verdict = verdicts.get(candidate.id)
        if candidate.task == SUMMARY_TASK:
            continue
        if verdict is None:
            dropped[candidate.id] = "the verifier gave no verdict"
        elif not agrees(candidate, verdict):
            if candidate.format == "open":
                own = verdict["open"][-1]
                dropped[candidate.id] = f"the verifier answers {own['answer'][:80]!r}: {own['verdict']}"
            else:
                dropped[candidate.id] = f"the verifier chooses {verdict['verified'][-1][:80]!r}"
    return dropped
