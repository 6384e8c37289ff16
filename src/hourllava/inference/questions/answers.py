"""Results of asking: answers and choices with their evidence."""

import dataclasses
from typing import Literal

from hourllava.inference.questions.evidence import Span

FinishReason = Literal["stop", "length", "cancelled"]


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer and where it comes from.

    Attributes:
        question: as asked, with U+FFFD for bytes that are no text.
        text: the answer. Times that the model writes in it count from the first picture, because it was trained so.
        evidence: the moments that the prompt looked at, strongest first, on the player's clock; empty if cancelled.
        finish_reason: `stop` if the model ended its answer or wrote a stop text, `length` if the answer reached
            `max_new_tokens` or the end of the model's context, `cancelled` if nobody wanted the rest.
        num_prompt_tokens: tokens of the prompt, kept tokens of the video included.
        num_new_tokens: tokens of the answer.
        first_token_seconds: from the call to the answer's first token, time in the queue included.
        total_seconds: from the call to the end of the answer.
        num_video_tokens: tokens of the prompt that stand for the video, kept tokens and recall tokens.
        num_cached_tokens: tokens of the prompt that earlier questions had left computed (a kept prefix).
    """

    question: str
    text: str
    evidence: list[Span]
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_new_tokens: int
    first_token_seconds: float
    total_seconds: float
    num_video_tokens: int = 0
    num_cached_tokens: int = 0

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
