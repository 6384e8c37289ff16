"""What asking gives."""

import dataclasses
from typing import Any, Literal

from hourllava.inference.evidence import Span


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer and where it comes from.

    Attributes:
        question: as asked; bytes that are no text became U+FFFD.
        text: the answer. Times that the model writes itself count from the first picture, as it was trained.
        evidence: the moments the prompt looked at, strongest first, on the player's clock.
        finish_reason: `stop` if the model ended its answer, `length` if it was cut at `max_new_tokens`.
        num_prompt_tokens: tokens of the prompt, visual ones included.
        num_new_tokens: tokens of the answer.
        first_token_seconds: from the call to the first token, all questions of the call together.
        total_seconds: from the call to the end of the answer.
    """

    question: str
    text: str
    evidence: list[Span]
    finish_reason: Literal["stop", "length"]
    num_prompt_tokens: int
    num_new_tokens: int
    first_token_seconds: float
    total_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the form of `hourllava ask --json`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The option the model finds most probable.

    Attributes:
        question: as asked; bytes that are no text became U+FFFD.
        option: the text of the chosen option.
        letter: its letter.
        probabilities: of each option, in the order given; they add up to 1.
        evidence: the moments the prompt looked at, strongest first, on the player's clock.
    """

    question: str
    option: str
    letter: str
    probabilities: list[float]
    evidence: list[Span]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the form of `hourllava ask --json` with `--option`."""
        return dataclasses.asdict(self)
