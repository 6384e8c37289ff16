"""A conversation about a memory, in which earlier questions and answers are context."""

from typing import Unpack

from hourllava.errors import InputError
from hourllava.inference.engine import HourLlava, OnText
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions.answers import Answer
from hourllava.inference.questions.options import AskOptions


class Chat:
    """A conversation about one memory.

        chat = Chat(model, memory)
        print(chat.ask("What is on the desk?").text)
        print(chat.ask("And beside it?").text)

    One thread at a time may ask it, because its questions follow one another.

    Args:
        model: answers.
        memory: from `HourLlava.watch`, or loaded.

    Attributes:
        history: (question, answer) pairs so far.
    """

    def __init__(self, model: HourLlava, memory: Memory) -> None:
        self.history: list[tuple[str, str]] = []
        self._model, self._memory = model, memory

    def ask(self, question: str, *, on_text: OnText | None = None, **options: Unpack[AskOptions]) -> Answer:
        """Ask the next question. A question that fails does not become part of the history.

        Args:
            question: one question.
            on_text, **options: as for `HourLlava.ask`.

        Raises:
            InputError: several questions at once, or a reason of `HourLlava.ask`.
            ConfigError, MemoryFileError: as `HourLlava.ask`.
        """
        if not isinstance(question, str):
            raise InputError(f"a conversation takes one question at a time, as text, got {question!r:.80}")
        answer = self._model.ask(self._memory, question, on_text=on_text, history=self.history, **options)
        self.history.append((answer.question, answer.text))
        return answer
