"""The scheduler: one thread owns the device, and everybody else talks to it through queues.

    scheduler = Scheduler(model, stop_ids)
    scheduler.ask(Question(make_prompt, state, max_new_tokens=64, sampling=Sampling()))
    features = scheduler.encode(lambda: tower(frames)).result()

A turn of the thread: rows that are no longer wanted leave; one piece of other work is done; one waiting question is
prefilled into a row, or a few behind the same kept prefix; the rows take a few steps; one batch of frames is encoded.
So a question waits for at most one batch of frames and one piece of other work, a batch of frames for one prefill and a
few steps, a cancelled answer for one step.

Questions of several calls take turns: of two calls with many each, every other question is from the other one.
"""

import atexit
import collections
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import torch
from torch import Tensor

from hourllava.errors import Cancelled, CheckpointError, EngineBusy
from hourllava.forks import renew_after_fork
from hourllava.inference.ended import EndedAnswers
from hourllava.inference.memories.ready import ReadyMemories
from hourllava.inference.questions.prompt import Prompt, embed_together, room_after
from hourllava.inference.queues import Pace, Question, RoundRobin, Started, Task, Telling
from hourllava.inference.rows.decoder import DAMAGED, Row, RowDecoder
from hourllava.inference.rows.prefill import Prefilled
from hourllava.model.devices import check_fork
from hourllava.model.kept_prefix import KeptPrefix
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.threads import start_waited_for

# Steps of all rows before the next waiting question is prefilled, or the next batch of frames encoded. An hour's
# prefill takes as long as 40 steps: with four between two prefills, 16 answers of 64 tokens would be in flight.
STEPS_PER_TURN = 4
# The same after a prefill behind a kept prefix, while others wait. The first of these steps only hands out what the
# prefill gave. On a GPU a prefill takes as long as a few steps, so rows fill up first. On a CPU it takes as long as
# six, and answers that are being written go on.
STEPS_AFTER_SHORT_PREFILL = 1
STEPS_AFTER_SHORT_PREFILL_ON_CPU = 2

# Questions that wait, of all calls together. Each holds its text and a reference to its memory.
MAX_WAITING = 4096

_CLOSED = "the model was closed meanwhile"
_DAMAGED_WEIGHTS = "the model gives no numbers (NaN), so its weights are damaged: load another checkpoint"

Result = TypeVar("Result")

_log = logging.getLogger(__name__)
_all_schedulers: "weakref.WeakSet[Scheduler]" = weakref.WeakSet()


class Scheduler:
    """Runs a model for many callers. All public methods may be called from any thread.

    The thread starts with the first request and ends with `close`.

    Args:
        model: in evaluation mode, on its device.
        stop_ids: tokens that end an answer.
        max_waiting: questions that may wait.
    """

    def __init__(
        self, model: HourLlavaForConditionalGeneration, stop_ids: Sequence[int], *, max_waiting: int = MAX_WAITING
    ) -> None:
        self.model, self._stop_ids, self._max_waiting = model, frozenset(stop_ids), max_waiting
        self._made_in_process = os.getpid()
        self._at_end: weakref.WeakSet[ReadyMemories] = weakref.WeakSet()
        self._num_closed = 0
        self.renew()
        renew_after_fork(self)
        _all_schedulers.add(self)

    def renew(self) -> None:
        """No request, no thread: at the beginning, and in a forked process, whose parent has the thread."""
        self._changed = threading.Condition()
        self._questions: RoundRobin[Question] = RoundRobin()
        self._tasks: collections.deque[Task] = collections.deque()
        self._frames: collections.deque[Task] = collections.deque()
        self._is_closing = self._has_cancelled = False
        self._thread: threading.Thread | None = None
        self._rows = RowDecoder(self.model)
        self._running: dict[Row, Started] = {}
        self._next: Started | None = None  # waits for room
        self._joining: list[Started] = []  # have room, and are about to be prefilled
        self._pace = Pace()
        self._ended = EndedAnswers(self._pace)

    # ------------------------------------------------------------------------------------------------ for callers

    def ask(self, question: Question, caller: Hashable = None, *, waits: bool = False) -> None:
        """Put a question into the queue.

        Args:
            question: its state takes the answer, or the error.
            caller: callers take turns; by default each question is a caller of its own.
            waits: whether to wait while the queue is full.

        Raises:
            EngineBusy: the queue is full, and the call does not wait.
            Cancelled: the model was closed while the call waited.
            InputError: the model is on a GPU and was loaded before a fork.
        """
        self._check_process()
        with self._changed:
            num_closed = self._num_closed
            while len(self._questions) >= self._max_waiting:
                if not waits:
                    retry_seconds = max(1.0, self._pace.seconds_per_answer)
                    raise EngineBusy(f"{self._max_waiting} questions wait already; ask again later", retry_seconds)
                self._changed.wait()
                if num_closed != self._num_closed:
                    raise Cancelled(_CLOSED)
            self._start_thread()
            self._questions.put(question.state if caller is None else caller, question)
            self._changed.notify_all()

    def run(self, work: Callable[[], Result]) -> Result:
        """Do something on the device, in turn with questions, and give its result; an interrupt takes it back.

        Raises:
            InputError: as `ask`.
            Exception: whatever `work` raises.
        """
        self._check_process()
        if threading.current_thread() is self._thread:  # work that needs more work
            return work()
        future = self._submitted(self._tasks, work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def encode(self, work: Callable[[], Result]) -> Future[Result]:
        """Encode a batch of frames, after a question and after the batches that wait already.

        Returns:
            the future result of `work`; one that is cancelled before it runs is not run.

        Raises:
            InputError: as `ask`.
        """
        self._check_process()
        return self._submitted(self._frames, work)

    def _submitted(self, queue: collections.deque[Task], work: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        with self._changed:
            self._start_thread()
            queue.append(Task(work, future))
            self._changed.notify_all()
        return future

    def wake(self) -> None:
        """Tell the thread that something was cancelled."""
        with self._changed:
            self._has_cancelled = True
            self._changed.notify_all()

    def next_logits(self, prompt: Prompt) -> Tensor:
        """[V] of the token behind a prompt that becomes no row. Only for work of `run`."""
        return self._rows.next_logits(prompt.take_embeds(), prompt.prefix)

    def release_rows(self) -> None:
        """Free the buffers of rows, if none is in use. Only for work of `run`."""
        if not self._running:
            self._rows.release()

    def free_at_end(self, ready: ReadyMemories) -> None:
        """Free these memories when the thread ends."""
        self._at_end.add(ready)

    def ask_to_close(self) -> threading.Thread | None:
        """As `close`, without waiting for the thread, which is given."""
        with self._changed:
            self._num_closed += 1
            self._is_closing = self._thread is not None
            self._changed.notify_all()
            if self._thread is None:
                self._free()
            return self._thread

    def close(self) -> None:
        """End the thread. Requests that have not ended fail with `Cancelled`; a later request starts a new thread."""
        thread = self.ask_to_close()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _check_process(self) -> None:
        check_fork(self._made_in_process, self.model.device)

    def _start_thread(self) -> None:
        """Start the thread if there is none; a request is put into its queue when that has worked."""
        if self._thread is None:
            self._is_closing = False
            thread = threading.Thread(target=self._work, name="hourllava-engine", daemon=True)
            start_waited_for(thread)  # it waits for the lock that is held here
            self._thread = thread

    # ------------------------------------------------------------------------------------------------ the thread

    def _work(self) -> None:
        device = self.model.device
        with torch.inference_mode(), torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            try:
                check_fork(self._made_in_process, device)
                while self._wait():
                    self._turn()
            except BaseException as error:  # noqa: BLE001 - all callers get it
                _log.exception("the engine's thread failed")
                with self._changed:
                    self._end_all(error)

    def _wait(self) -> bool:
        """Wait for work; False if the thread shall end, after all requests were told."""
        with self._changed:
            while not (
                self._is_closing or self._running or self._next or self._questions or self._tasks or self._frames
            ):
                self._changed.wait()
            if not self._is_closing:
                return True
            self._end_all(Cancelled(_CLOSED))
            return False

    def _end_all(self, error: BaseException) -> None:
        """Tell all callers of an error; then there is no thread."""
        started = [*self._running.values(), *self._ended, *self._joining, *([self._next] if self._next else [])]
        for question in (*self._questions.drop(), *(one.question for one in started)):
            question.state.fail(error)
        for task in (*self._tasks, *self._frames):
            task.fail(error)
        self._tasks.clear()
        self._frames.clear()
        self._free()
        self._thread = None
        self._changed.notify_all()  # to callers that wait for room in the queue

    def _free(self) -> None:
        self._running.clear()
        self._ended.clear()
        self._joining.clear()
        self._next = None
        self._rows.release()
        for ready in list(self._at_end):
            ready.release()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _turn(self) -> None:
        self._drop_unwanted()
        with self._changed:
            task = self._tasks.popleft() if self._tasks else None
            frames = self._frames.popleft() if self._frames else None
            question = self._questions.take() if self._next is None else None
            self._changed.notify_all()  # to callers that wait for room in the queue
        if task is not None:
            task()
        if question is not None:
            self._next = self._embedded(question)
        num_steps = STEPS_PER_TURN
        self._gather()
        if self._joining:
            prefix = self._joining[0].prompt.prefix
            self._prefill(prefix)
            if prefix is not None and (self._next is not None or len(self._questions)):
                on_cpu = self._rows.max_together == 1
                num_steps = STEPS_AFTER_SHORT_PREFILL_ON_CPU if on_cpu else STEPS_AFTER_SHORT_PREFILL
        for _ in range(num_steps):
            if not self._running:
                break
            self._step()
            self._drop_unwanted()
            self._ended.finish(self._rows.max_together, waits=False)
        self._ended.finish(self._rows.max_together, waits=not (self._running or self._next or self._questions))
        if frames is not None:
            frames()

    def _drop_unwanted(self) -> None:
        """End cancelled answers: those in rows, and those that wait."""
        with self._changed:
            if not self._has_cancelled:
                return
            self._has_cancelled = False
            waiting = self._questions.drop(lambda question: question.state.is_cancelled)
            self._changed.notify_all()  # to callers that wait for room in the queue
        if self._next is not None and self._next.question.state.is_cancelled:
            waiting.append(self._next.question)
            self._next = None
        for row, started in list(self._running.items()):
            if started.question.state.is_cancelled:
                self._leave(row)
                waiting.append(started.question)
        for question in waiting:
            with Telling(question):
                question.state.finish("cancelled", [])

    def _embedded(self, question: Question) -> Started | None:
        """The question with its prompt; None if that fails, which its callers are told."""
        with Telling(question):
            prompt = question.make_prompt()
            question.state.num_prompt_tokens = prompt.num_tokens
            question.state.num_video_tokens = prompt.num_video_tokens
            question.state.num_cached_tokens = prompt.num_cached_tokens
            max_new_tokens = min(question.max_new_tokens, room_after(prompt.num_tokens, self.model.config))
            return Started(question, prompt, max_new_tokens)
        return None

    def _gather(self) -> None:
        """Put the next question, and others behind the same prefix, among those that join, if there is room."""
        while self._next is not None and self._may_join(self._next):
            self._joining.append(self._next)
            self._next = None
            if self._joining[0].prompt.prefix is None or len(self._joining) == self._rows.max_together:
                break
            with self._changed:
                question = self._questions.take()
                self._changed.notify_all()
            if question is not None:
                self._next = self._embedded(question)

    def _may_join(self, started: Started) -> bool:
        prefix = started.prompt.prefix
        if self._joining and prefix is not self._joining[0].prompt.prefix:
            return False
        lengths = [one.prompt.num_own_tokens for one in (*self._joining, started)]
        before = [one.num_own_tokens for one in self._joining]
        return self._rows.go_together(lengths) and self._rows.has_room(started.num_own_tokens, prefix, before)

    def _prefill(self, prefix: KeptPrefix | None) -> None:
        """Prefill the questions that join, and begin their rows."""
        prompts: list[Prefilled] = []
        with Telling(*(started.question for started in self._joining)):
            embed_together([started.prompt for started in self._joining])
            prompts = self._rows.prefill([started.prompt.take_embeds() for started in self._joining], prefix)
        for prompt in prompts:
            started = self._joining.pop(0)
            with Telling(started.question):
                sampling = started.question.sampling
                row = self._rows.join(prompt, max_new_tokens=started.max_new_tokens, sampling=sampling)
                self._running[row] = started
        self._joining.clear()  # if there are no prompts, they were told why

    def _step(self) -> None:
        tokens = None
        with Telling(*(started.question for started in self._running.values())):
            tokens = self._rows.step()
        if tokens is None:  # no row can go on
            self._running.clear()
            self._rows.release()
            return
        for row, token in tokens:
            with Telling(self._running[row].question) as telling:
                self._take(row, token)
            if telling.has_failed and row in self._running:
                self._leave(row)

    def _take(self, row: Row, token: int) -> None:
        started = self._running[row]
        state = started.question.state
        if token == DAMAGED:
            raise CheckpointError(_DAMAGED_WEIGHTS)
        if token in self._stop_ids or state.put(token):
            self._ended.add(self._leave(row), "stop")
        elif state.num_tokens == started.max_new_tokens:
            self._ended.add(self._leave(row), "length")

    def _leave(self, row: Row) -> Started:
        self._rows.leave(row)
        return self._running.pop(row)


def _close_all() -> None:
    """At the end of the interpreter no thread may use the device."""
    for scheduler in list(_all_schedulers):
        scheduler.close()


atexit.register(_close_all)
