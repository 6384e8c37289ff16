"""Checks by what the verifier said."""

from collections.abc import Mapping, Sequence
from typing import Any

from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.within import Dropped
from hourllava.synthesis.questions import SUMMARY_TASK


def agrees(candidate: Candidate, verdict: Mapping[str, Any]) -> bool:
    """Whether a verdict agrees with the writer under every order of the options."""
    if candidate.format == "open":
        return bool(verdict.get("open", {}).get("verdict") == "same")
    chosen = verdict.get("verified", [])
    return bool(chosen) and all(option == candidate.answer for option in chosen)


def verified(candidates: Sequence[Candidate], verdicts: Mapping[str, Mapping[str, Any] | None]) -> Dropped:
    """Questions on which the verifier does not agree with the writer under every order of the options.

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
                own = verdict["open"]
                dropped[candidate.id] = f"the verifier answers {own['answer'][:80]!r}: {own['verdict']}"
            else:
                others = [option for option in verdict["verified"] if option != candidate.answer]
                dropped[candidate.id] = f"the verifier chooses {others[0][:80]!r}"
    return dropped
