"""Spoils answers of the right form on purpose: each kind is what a check, or a measure, must find.

Questions that are spoilt can be told afterwards: `planted` draws again what was drawn when the answer was given.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from hourllava.synthesis.models.request import Request
from hourllava.synthesis.prompting import read_block
from hourllava.synthesis.rows import digest

Question = dict[str, Any]


class Drawing(Protocol):
    """Draws whether a fault happens: the server."""

    def drawn(self, kind: str, *content: object) -> bool: ...


def is_drawn(rate: float, seed: int, kind: str, *content: object) -> bool:
    """Whether a fault of this kind is drawn for this content."""
    return rate > 0 and int(digest(seed, kind, *content)[:12], 16) / 16**12 < rate


def planted(rates: Mapping[str, float], seed: int, question: Question) -> str | None:
    """The kind of mischief that was drawn for a right question; None: it was left as it is."""
    content = question["question"], question["answer"]
    kind = next((k for k in QUESTION_MISCHIEF if is_drawn(rates.get(k, 0.0), seed, k, *content)), None)
    return None if kind in ("two right", "long right", "telltale") and "options" not in question else kind


def _wrong_answer(question: Question, others: Sequence[Question]) -> Question | None:
    """Another answer, with the true one among the wrong options."""
    if "wrong_options" in question:
        wrong = question["wrong_options"]
        return question | {"answer": wrong[0], "wrong_options": [question["answer"], *wrong[1:]]}
    if question["answer"] in ("yes", "no"):
        return question | {"answer": "no" if question["answer"] == "yes" else "yes"}
    answers = [o["answer"] for o in others if o["task"] == question["task"] and o["answer"] != question["answer"]]
    return question | {"answer": answers[0]} if answers else None


def _two_right(question: Question, others: Sequence[Question]) -> Question | None:
    """A wrong option that says the same as the right one."""
    if "wrong_options" not in question:
        return None
    return question | {"wrong_options": [f"{question['answer']}, as seen", *question["wrong_options"][1:]]}


def _talk(question: Question, others: Sequence[Question]) -> Question | None:
    return question | {"question": f"In clip 3, {question['question'][0].lower()}{question['question'][1:]}"}


def _twice(question: Question, others: Sequence[Question]) -> Question | None:
    """The question of a neighbour in place of this one."""
    twin = next((o for o in others if o is not question and o["task"] == question["task"]), None)
    return dict(twin) if twin is not None else None


def _no_evidence(question: Question, others: Sequence[Question]) -> Question | None:
    return question | {"evidence": ["event 999"]}


def _late(question: Question, others: Sequence[Question]) -> Question | None:
    return question | {"question": f"{question['question'].rstrip('?.')} at 30:12:00?"}


def _untold(question: Question, others: Sequence[Question]) -> Question | None:
    return question | {"answer": "It is not mentioned."}


def _long_right(question: Question, others: Sequence[Question]) -> Question | None:
    if "wrong_options" not in question:
        return None
    return question | {"answer": f"{question['answer']}, which is what can be seen to happen at that very moment"}


def _telltale(question: Question, others: Sequence[Question]) -> Question | None:
    """A word that only right options have: attackers learn it."""
    return question | {"answer": f"{question['answer']} indeed"} if "wrong_options" in question else None


def _foreign(question: Question, others: Sequence[Question]) -> Question | None:
    return question | {"question": "\u041a\u0430\u043a\u043e\u0433\u043e \u0446\u0432\u0435\u0442\u0430 \u043e\u043d?"}


QUESTION_MISCHIEF: dict[str, Callable[[Question, Sequence[Question]], Question | None]] = {
    "wrong answer": _wrong_answer,
    "two right": _two_right,
    "talk": _talk,
    "twice": _twice,
    "no evidence": _no_evidence,
    "late": _late,
    "untold": _untold,
    "long right": _long_right,
    "telltale": _telltale,
    "foreign": _foreign,
}
MISCHIEF = (
    *QUESTION_MISCHIEF,
    "verifier errs",  # in an answer
    "verifier misjudges",  # in all answers about a question
    "made-up object",
    "unordered events",
    "late events",
    "overlapping events",
    "m:ss",
)


def spoilt(server: Drawing, request: Request, text: str) -> str:
    """An answer, spoilt as the server draws."""
    found = json.loads(text)
    if request.kind in ("open_questions", "choice_questions"):
        found["questions"] = [_spoilt_question(server, question, found["questions"]) for question in found["questions"]]
    elif request.kind == "clip_caption" and server.drawn("made-up object", text):
        found["object"] = found["object"].replace("Visible: ", "Visible: a small purple arrow, ")
    elif request.kind in ("verify_open", "verify_choice"):
        question = read_block("question", request.text)
        if server.drawn("verifier errs", digest(request.text, request.seed)):
            _misjudge(request, found, request.text)
        elif server.drawn("verifier misjudges", digest(question)):
            _misjudge(request, found, "always the same")
    elif request.kind == "events":
        _spoil_events(server, found["events"], digest(request.text))
    else:
        return text
    return json.dumps(found)


def _spoilt_question(server: Drawing, question: Question, others: Sequence[Question]) -> Question:
    for kind, spoil in QUESTION_MISCHIEF.items():
        if server.drawn(kind, question["question"], question["answer"]):
            return spoil(question, others) or question
    return question


def _misjudge(request: Request, found: dict[str, Any], key: str) -> None:
    """Turn an open verdict round; choose another option, which the key decides."""
    if request.kind == "verify_open":
        found["verdict"] = "different" if found["verdict"] == "same" else "same"
        return
    options = read_block("options", request.text)
    others = sorted((line for line in options[:-2] if line["letter"] != found["letter"]), key=lambda o: o["option"])
    found["letter"] = others[int(digest(key, read_block("question", request.text))[:8], 16) % len(others)]["letter"]


def _spoil_events(server: Drawing, events: list[dict[str, Any]], content: str) -> None:
    if server.drawn("unordered events", content):
        events.reverse()
    if server.drawn("late events", content):
        events[-1]["end"] = "99:00:00"
    if server.drawn("overlapping events", content) and len(events) > 1:
        events[1]["start"] = events[0]["start"]
    if server.drawn("m:ss", content):
        for event in events:
            for name in ("start", "end"):
                hours, minutes, seconds = event[name].split(":")
                event[name] = f"{60 * int(hours) + int(minutes)}:{seconds}" if int(hours) == 0 else event[name]
