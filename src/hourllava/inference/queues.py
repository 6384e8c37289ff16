"""What waits for the scheduler's thread: questions, in a queue in which callers take turns, and other work."""

import collections
import dataclasses
import time
import traceback
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Generic, Self, TypeVar

from hourllava.inference.questions.prompt import Prompt
from hourllava.inference.rows.sampling import Sampling
from hourllava.inference.streams import AnswerState

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Question:
    """A question in the queue.

    Attributes:
        make_prompt: embeds its prompt; runs in the scheduler's thread.
        state: takes the answer.
        max_new_tokens: limit of the answer; the model's context is another.
        sampling: how tokens are chosen.
    """

    make_prompt: Callable[[], Prompt]
    state: AnswerState
    max_new_tokens: int
    sampling: Sampling


@dataclasses.dataclass(frozen=True)
class Started:
    """A question with its prompt; `max_new_tokens` fit into the model's context."""

    question: Question
    prompt: Prompt
    max_new_tokens: int

    @property
    def num_own_tokens(self) -> int:
        """Of prompt and answer, without those of a kept prefix."""
        return self.prompt.num_own_tokens + self.max_new_tokens


@dataclasses.dataclass(frozen=True)
class Task:
    """Work on the device that is no row; `future` takes its result."""

    run: Callable[[], object]
    future: Future[Any]

    def __call__(self) -> None:
        """Do it, unless its caller has cancelled it."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.run())
        except BaseException as error:  # noqa: BLE001 - its caller gets it
            traceback.clear_frames(error.__traceback__)  # which hold tensors
            self.future.set_exception(error)

    def fail(self, error: BaseException) -> None:
        """Tell the caller of an error in place of a result, unless it has cancelled the work."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Pace:
    """How fast the last answers ended, for callers that are told to come again later."""

    def __init__(self) -> None:
        self._ended_seconds: collections.deque[float] = collections.deque(maxlen=16)

    def note_end(self) -> None:
        """Note that an answer has ended."""
        self._ended_seconds.append(time.monotonic())

    @property
    def seconds_per_answer(self) -> float:
        """Seconds between two of the last answers; 1 before there are two."""
        ended = list(self._ended_seconds)
        return (ended[-1] - ended[0]) / (len(ended) - 1) if len(ended) > 1 else 1.0


class RoundRobin(Generic[Item]):
    """A queue in which callers take turns."""

    def __init__(self) -> None:
        self._queues: collections.OrderedDict[Hashable, collections.deque[Item]] = collections.OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, caller: Hashable, item: Item) -> None:
        """Add an item to a caller's own queue."""
        self._queues.setdefault(caller, collections.deque()).append(item)

    def take(self) -> Item | None:
        """The first item of the caller whose turn it is; None if the queue is empty."""
        if not self._queues:
            return None
        caller, queue = self._queues.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._queues[caller] = queue  # behind all others
        return item

    def drop(self, is_unwanted: Callable[[Item], bool] = lambda item: True) -> list[Item]:
        """Remove items, by default all, and give them."""
        dropped = [item for queue in self._queues.values() for item in queue if is_unwanted(item)]
        for caller, queue in list(self._queues.items()):
            left = collections.deque(item for item in queue if not is_unwanted(item))
            if left:
                self._queues[caller] = left
            else:
                del self._queues[caller]
        return dropped


class Telling:
    """A block whose errors the callers of these questions are told of; the thread goes on.

    Attributes:
        has_failed: whether there was an error.
    """

    def __init__(self, *questions: Question) -> None:
        self._questions = questions
        self.has_failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        self.has_failed = True
        traceback.clear_frames(error.__traceback__)  # which hold tensors
        for question in self._questions:
            question.state.fail(error)
        return isinstance(error, Exception)
