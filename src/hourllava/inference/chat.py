"""A conversation about a memory."""

from typing import TYPE_CHECKING, Any

from hourllava.errors import InputError
from hourllava.inference.answers import Answer
from hourllava.inference.memory import Memory

if TYPE_CHECKING:
    from hourllava.inference.engine import HourLlava


class Chat:
    """A conversation about one memory.

    Attributes:
        history: questions and answers so far.
    """

    def __init__(self, model: "HourLlava", memory: Memory) -> None:
        self.history: list[tuple[str, str]] = []
        self._model, self._memory = model, memory

    def ask(self, question: str, **options: Any) -> Answer:
        """Ask on; takes the options of `HourLlava.ask`. A question that fails is not remembered.

        Raises:
            InputError: several questions at once, or what `HourLlava.ask` refuses.
        """
        if not isinstance(question, str):
            raise InputError(f"a conversation takes one question at a time, as text, got {question!r:.80}")
        answer: Answer = self._model.ask(self._memory, question, history=self.history, **options)
        self.history.append((answer.question, answer.text))
        return answer
