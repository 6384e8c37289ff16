"""Results of asking: answers and choices with their evidence."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from hourllava.inference.asking import OnText, Prompt
from hourllava.inference.evidence import Span


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer and where it comes from.

    Attributes:
        question: as asked, with U+FFFD for bytes that are no text.
        text: the answer. Times that the model writes in it count from the first picture, because it was trained so.
        evidence: the moments that the prompt looked at, strongest first, on the player's clock.
        finish_reason: `stop` if the model ended its answer, `length` if the answer reached `max_new_tokens` or the end
            of the model's context.
        num_prompt_tokens: tokens of the prompt, kept tokens of the video included.
        num_new_tokens: tokens of the answer.
        first_token_seconds: from the call to its first token, which all questions of a call share.
        total_seconds: from the call to the end of all its answers.
    """

    question: str
    text: str
    evidence: list[Span]
    finish_reason: Literal["stop", "length"]
    num_prompt_tokens: int
    num_new_tokens: int
    first_token_seconds: float
    total_seconds: float

    def to_dict(self) -> dict[str, object]:
        """The answer as plain data, as `hourllava ask --json` prints it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The option that the model finds most probable.

    Attributes:
        question: as asked, with U+FFFD for bytes that are no text.
        option: text of the chosen option.
        letter: of the chosen option, `A` to `Z`.
        probabilities: of all options, in the order given; they add up to 1.
        evidence: the moments that the prompt looked at, strongest first, on the player's clock.
    """

    question: str
    option: str
    letter: str
    probabilities: list[float]
    evidence: list[Span]

    def to_dict(self) -> dict[str, object]:
        """The choice as plain data, as `hourllava ask --json --option` prints it."""
        return dataclasses.asdict(self)


def collect_answers(
    prompt: Prompt,
    questions: Sequence[str],
    steps: Iterable[Sequence[int | None]],
    decode: Callable[[Sequence[int]], str],
    max_new_tokens: int,
    *,
    on_text: OnText | None,
    started: float,
) -> list[Answer]:
    """Run a decoding to its end and give the answers.

    Args:
        prompt: of the questions.
        questions: [B].
        steps: for each step the next token of each row, None for a row that has ended (`decoding.generate_tokens`).
        decode: token ids to text.
        max_new_tokens: of a row; an answer with so many was cut.
        on_text: called with each new piece of the first answer's text.
        started: when the call began, by `time.perf_counter`.
    """
    rows: list[list[int]] = [[] for _ in questions]
    written = ""
    first_token_seconds = 0.0
    for step in steps:
        first_token_seconds = first_token_seconds or time.perf_counter() - started
        for row, token in zip(rows, step):
            if token is not None:
                row.append(token)
        if on_text is not None:
            text = decode(rows[0])
            # An unfinished character shows as U+FFFD; wait for the rest of it.
            if len(text) > len(written) and not text.endswith("\ufffd"):
                on_text(text[len(written) :])
                written = text
    if on_text is not None and len(rest := decode(rows[0])[len(written) :]):
        on_text(rest)
    return [
        Answer(
            question=question,
            text=decode(row),
            evidence=prompt.evidence(),
            finish_reason="length" if len(row) == max_new_tokens else "stop",
            num_prompt_tokens=len(prompt.embeds_LD),
            num_new_tokens=len(row),
            first_token_seconds=first_token_seconds or time.perf_counter() - started,
            total_seconds=time.perf_counter() - started,
        )
        for question, row in zip(questions, rows)
    ]
