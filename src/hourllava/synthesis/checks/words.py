"""Checks of one question alone: each gives the reason to drop it, or None."""

import re
import unicodedata
from collections.abc import Callable

from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.questions import SUMMARY_TASK
from hourllava.synthesis.times import times_in

Reason = str | None
WordCheck = Callable[[Candidate, str], Reason]
"""Takes a question and the script of letters that the data set is in."""

_TALK = re.compile(
    r"(?<!paper )(?<!hair )\bclips?\b|\bcaptions?\b|\b(?:the|this|these) frames?\b|\bscreenshots?\b"
    r"|\b(?:this|given|provided) (?:text|data)\b|\b(?:the|this|given|provided) (?:descriptions?|passage|transcript)\b"
    r"|\bpart \d+\b|\bevent \d+\b|\bas described\b|\bis described as\b",
    re.IGNORECASE,
)
_UNTOLD = re.compile(
    r"\b(?:not|n't|never) (?:be )?(?:specif|mention|describ|depict|shown in|stated|provided|told|given|known)"
    r"|\bunknown\b|\bcannot be (?:determined|told)|\bno information\b|\bunclear\b",
    re.IGNORECASE,
)
_PERSONAL = {
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[a-z]{2,}", re.IGNORECASE),
    "a telephone number": re.compile(r"(?<![\d:])\+?\d(?:[ ()-]?\d){8,14}(?![\d:])"),
    "a card number": re.compile(r"\b(?:\d{4}[ -]?){3}\d{4}\b"),
}
_EMPTY_OPTIONS = re.compile(r"(?:all|none|both|neither|some|several) of (?:the|these) (?:above|options|others)?"
                            r"|(?:all|none) of (?:these|them)|not enough information", re.IGNORECASE)  # fmt: skip
_OFFER = re.compile(r"\bor\b|\bwhich\b|\(\d\)|[:;]", re.IGNORECASE)
_WORD = re.compile(r"[\w']+")
MAX_QUESTION_LETTERS, MAX_ANSWER_LETTERS, MAX_OPTION_LETTERS = 400, 600, 200
_FOREIGN_SHARE = 0.2


def _times(candidate: Candidate, script: str) -> Reason:
    latest = max(times_in(" ".join([candidate.question, candidate.answer])), default=0.0)
    return f"a time of {latest:g} s is beyond the video" if latest > candidate.duration_seconds + 1 else None


def _evidence(candidate: Candidate, script: str) -> Reason:
    if candidate.evidence or candidate.task == SUMMARY_TASK:
        return None
    return f"evidence is not of this video: {', '.join(candidate.named_evidence)[:80] or 'none named'}"


def _talk(candidate: Candidate, script: str) -> Reason:
    match = _TALK.search(" ".join([candidate.question, candidate.answer, *candidate.wrong]))
    return f"speaks of the data: {match[0]!r}" if match else None


def _text(candidate: Candidate, script: str) -> Reason:
    question, answer = words(candidate.question), words(candidate.answer)
    is_summary = candidate.task == SUMMARY_TASK
    if len(question) < 2 or not answer:
        return "question or answer is empty"
    if len(candidate.question) > MAX_QUESTION_LETTERS or (
        len(candidate.answer) > MAX_ANSWER_LETTERS and not is_summary
    ):
        return "question or answer is too long"
    offers = _OFFER.search(candidate.question)  # "the mill or the bridge?" has its answer in it
    if candidate.format == "open" and len(answer) > 2 and " ".join(answer) in " ".join(question) and not offers:
        return "the question has the answer in it"
    if match := _UNTOLD.search(candidate.answer):
        return f"the answer says that it is not known: {match[0]!r}"
    whole = " ".join([candidate.question, candidate.answer, *candidate.wrong])
    foreign = max(_foreign_share(text, script) for text in (candidate.question, whole))
    return f"{100 * foreign:.0f} % of the letters are not {script}" if foreign > _FOREIGN_SHARE else None


def _personal(candidate: Candidate, script: str) -> Reason:
    text = " ".join([candidate.question, candidate.answer, *candidate.wrong])
    return next((f"holds {what}" for what, pattern in _PERSONAL.items() if pattern.search(text)), None)


def _options(candidate: Candidate, script: str) -> Reason:
    if candidate.format == "open":
        return None
    options = [" ".join(words(option)) for option in (candidate.answer, *candidate.wrong)]
    if len(options) != 4 or len(set(options)) < len(options) or not all(options):
        return "the options are not four different ones"
    if any(len(option) > MAX_OPTION_LETTERS for option in (candidate.answer, *candidate.wrong)):
        return "an option is too long"
    if any(_EMPTY_OPTIONS.search(option) for option in (candidate.answer, *candidate.wrong)):
        return "an option is about the other options"
    for k, option in enumerate(options):
        if any(j != k and f" {option} " in f" {other} " and _is_weak(option, other) for j, other in enumerate(options)):
            return f"one option holds another: {option!r}"
    return None


def _is_weak(inner: str, outer: str) -> bool:
    """Whether an option that stands in another makes both right: "a dog", "a dog and a cat"."""
    # "left" and "above left", "centre" and "top centre" name different places: one word in two may be meant so.
    return len(inner.split()) > 1 or len(outer.split()) > 2


WORD_CHECKS: dict[str, WordCheck] = {
    "times": _times, "evidence": _evidence, "talk": _talk, "text": _text, "personal": _personal, "options": _options,
}  # fmt: skip


def words(text: str) -> list[str]:
    """The words of a text in small letters, without articles."""
    return [word for word in _WORD.findall(text.casefold()) if word not in ("a", "an", "the")]


def _foreign_share(text: str, script: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return 0.0
    foreign = sum(not unicodedata.name(letter, "").startswith(script.upper()) for letter in letters)
    return foreign / len(letters)
