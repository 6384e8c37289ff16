"""Protocols: what exactly a model is asked, and how its answer is read.

    official        as the benchmark's authors ask and score
    lmms-eval-0.7.2 as lmms-eval 0.7.2 and 0.7.3 do
    lmms-eval-0.3   as lmms-eval up to 0.7.1 does: the same prompts, other rules
    likelihood      the most probable letter; our own, never comparable with the others

The sentence with the video's length, which belongs to our checkpoints, stays in front of every prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hourllava.choices import LETTERS
from hourllava.evaluation.benchmarks.cues import Sampling
from hourllava.evaluation.benchmarks.questions import Question

OFFICIAL, HARNESS, OLD_HARNESS, LIKELIHOOD, PLAIN = (
    "official", "lmms-eval-0.7.2", "lmms-eval-0.3", "likelihood", "plain",
)  # fmt: skip
HARNESS_STOP = "\n\n"
"""lmms-eval asks every model to stop here."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Attributes:
        user: the question as the user's turn.
        system: stands for the system's turn; "" leaves the model's own.
        reply: how the model's reply is begun for it.
    """

    user: str
    system: str = ""
    reply: str = ""

    def as_one_turn(self) -> str:
        """All of it as one user's turn: `HourLlava.ask` has no other system turn and begins no reply."""
        return "\n".join(part for part in (self.system, self.user, self.reply) if part)


Said = str | None
"""The subtitle text of a prompt: None if subtitles are not asked for, "" if this video has none."""


@dataclass(frozen=True)
class Protocol:
    """How the questions of a benchmark are asked.

    Attributes:
        name: such as "official".
        prompt: makes the prompt of a question and its subtitle text.
        rule: name of the rule that reads the answers.
        max_new_tokens: tokens that an answer may have.
        said: makes the subtitle text of a question from its subtitle file; None if the protocol has no subtitles.
        reads_file: whether `said` needs the frame rate and number of frames of the video's file.
        stop: the answer ends before this text.
        whole_file: whether all of a file is watched, also behind the published length of the video.
        is_likelihood: whether the letters' probabilities decide, and there is no prompt of its own.
        note: what a reader of its figures must know.
    """

    name: str
    prompt: Callable[[Question, Said], Prompt]
    rule: str
    max_new_tokens: int = 16
    said: Callable[[Question, Path, Sampling], str] | None = None
    reads_file: bool = False
    stop: str = ""
    whole_file: bool = False
    is_likelihood: bool = False
    note: str = ""


def lettered(options: Sequence[str], form: str = "{}. {}") -> str:
    """Options as lines with letters."""
    return "\n".join(form.format(letter, option) for letter, option in zip(LETTERS, options))


def followed_by(post_prompt: str) -> Callable[[Question, Said], Prompt]:
    """A prompt that is the published text, and then a post-prompt."""
    return lambda question, said: Prompt(question.text + post_prompt)


def _choose(question: Question, said: Said) -> Prompt:
    """`HourLlava.choose` makes its own prompt."""
    return Prompt(question.question)


LIKELIHOOD_PROTOCOL = Protocol(
    LIKELIHOOD, _choose, LIKELIHOOD, is_likelihood=True, said=lambda question, path, sampling: "",
    note="The most probable letter counts, so every answer has one. Not comparable with scores of written answers.",
)  # fmt: skip


def by_name(*protocols: Protocol) -> dict[str, Protocol]:
    """Protocols by their names, and `likelihood`."""
    return {protocol.name: protocol for protocol in (*protocols, LIKELIHOOD_PROTOCOL)}
