"""Watch a video once, ask it anything.

    model = HourLlava.from_pretrained("nano")
    memory = model.watch("lecture.mp4")
    answer = model.ask(memory, "When is the first graph shown?")
    print(answer.text, answer.evidence)

The library, the command and the server all go this way. One thread of the engine owns the device (`scheduler`); this
class turns calls into requests to it, so threads, asyncio tasks and callbacks may share a model. Greedy decoding, and
forgetting that is seeded by the video, make answers repeatable: the same question about the same memory gets the same
answer on the same device and in the same dtype, whatever else is asked meanwhile. All times that a caller gives or gets
(`start_seconds`, evidence, subtitles) are on the player's clock, see `Memory`.
"""

import collections
import contextlib
import copy
import functools
import os
import weakref
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import torch

from hourllava.errors import InputError
from hourllava.inference.asker import Asker
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.ready import MakeReady, ReadyMemories
from hourllava.inference.questions.answers import Answer, Choice
from hourllava.inference.questions.evidence import Span
from hourllava.inference.questions.options import AskOptions, AskSettings, History, SubtitleOptions
from hourllava.inference.questions.prompt import Context, checked_question
from hourllava.inference.scheduler import Scheduler
from hourllava.inference.streams import AnswerStream
from hourllava.inference.watches_videos import WatchesVideos
from hourllava.inference.watching.frame_encoder import FrameEncoder
from hourllava.inference.watching.watcher import Watcher
from hourllava.model.checkpoint import load_model
from hourllava.model.devices import check_fork, usable_device, usable_dtype
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import NANO, load_nano
from hourllava.model.processor import HourLlavaProcessor

OnText = Callable[[str], None]

# Questions of one `ask_all` that are in the queue, so that other callers find room there.
MAX_BEGUN = 256


class HourLlava(WatchesVideos):
    """A model with everything needed to watch videos and to ask about them.

    Any number of threads and asyncio tasks may use it at once, also inside callbacks.

        model = HourLlava.from_pretrained("nano")
        memory = model.watch("lecture.mp4")
        print(model.ask(memory, "When is the first graph shown?").text)

    Args:
        model: in evaluation mode, on its device.
        processor: of the same model.

    Attributes:
        model: as given.
        processor: as given.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration, processor: HourLlavaProcessor) -> None:
        self.model = model
        self.processor = processor
        self._scheduler = scheduler = Scheduler(model, processor.stop_ids)
        encoder = FrameEncoder(model)
        super().__init__(Watcher(encoder, lambda frames: scheduler.encode(functools.partial(encoder.launch, frames))))
        self._asker = Asker(model, processor, scheduler, encoder, ReadyMemories(model.model))
        self._owner: HourLlava | None = None  # of the thread, which a copy by `with_ready` keeps alive
        # The thread holds the scheduler, but not this object: it ends when nobody can ask any more.
        # It only asks: nobody knows in which thread, and under which locks, the last holder lets go.
        weakref.finalize(self, _ask_to_close, self._watcher, self._scheduler).atexit = False

    def with_ready(self, make_ready: MakeReady) -> "HourLlava":
        """The same model and thread, with another way to make memories ready: for experiments.

            quarter = model.with_ready(functools.partial(make_ready, share=0.25))  # MemAug sees a quarter of the frames

        Args:
            make_ready: in place of `hourllava.inference.memories.ready.make_ready`.
        """
        other = copy.copy(self)
        other._owner = self._owner or self
        ready = ReadyMemories(self.model.model, make_ready)
        other._asker = Asker(self.model, self.processor, self._scheduler, self._watcher.frame_encoder, ready)
        return other

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = NANO,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Self:
        """Load a model.

        Args:
            name: `"nano"` (part of the package), a checkpoint folder of any layout, or a name on the Hugging Face hub.
            device: `"cpu"`, `"cuda"` or `"cuda:1"`; by default a GPU if there is one, else the CPU.
            dtype: of the weights, float32 or bfloat16; by default bfloat16 on a GPU, float32 on the CPU.

        Raises:
            CheckpointError: there is no such checkpoint, or it is damaged; the message says what to do.
            ConfigError: there is no such device or dtype.
        """
        device = usable_device(device)
        dtype = usable_dtype(dtype, device)
        check_fork(os.getpid(), device)
        if str(name) == NANO:
            return cls(*load_nano(device=device, dtype=dtype))
        model, _ = load_model(name, device=device, dtype=dtype)
        return cls(model, HourLlavaProcessor.from_pretrained(name))

    def ask(
        self,
        memory: Memory | None,
        question: str,
        *,
        on_text: OnText | None = None,
        history: History = (),
        **options: Unpack[AskOptions],
    ) -> Answer:
        """Answer a question about a memory.

            answer = model.ask(memory, "When is the first graph shown?")

        Args:
            memory: from `watch`, or loaded. None asks the language model alone, without video and evidence. It may
                grow meanwhile: the answer is about what it held at the call.
            question: one question.
            on_text: called with each new piece of the answer's text, in this thread. If it raises, the answer is
                cancelled. It may ask.
            history: (question, answer) pairs of the conversation so far.
            **options: see `AskOptions`.

        Raises:
            InputError: the question is empty, the prompt is longer than the model's context, the memory has no frames,
                or `max_new_tokens` is below 1.
            ConfigError: temperature, top_p or seed is outside what is allowed.
            MemoryFileError: the memory was made by another encoder, or its file was written to.
            Cancelled: the model was closed meanwhile.
        """
        with self._begun(memory, question, history, options, waits=True) as stream:
            if on_text is not None:
                for piece in stream:
                    on_text(piece)
            return stream.answer

    def ask_all(
        self,
        memory: Memory | None,
        questions: Sequence[str],
        *,
        on_answer: Callable[[Answer], None] | None = None,
        history: History = (),
        **options: Unpack[AskOptions],
    ) -> list[Answer]:
        """Answer many questions about a memory: they are decoded together, each with the answer that it gets alone.

            first, second = model.ask_all(memory, ["Who speaks?", "What is on the desk?"])

        Args:
            memory: as for `ask`. If it grows, a question after the first 256 (`MAX_BEGUN`) is about the frames that it
                has when an earlier answer makes room.
            questions: any number.
            on_answer: called with each answer, in the order of the questions, in this thread.
            history, **options: as for `ask`, for each question.

        Returns:
            an answer for each question, in their order.

        Raises:
            HourLlavaError: as `ask`; the other questions are then cancelled.
        """
        if isinstance(questions, str):
            raise InputError("ask_all takes a list of questions; use ask for one")
        for question in questions:
            checked_question(question)
        caller = object()
        answers: list[Answer] = []
        begun: collections.deque[AnswerStream] = collections.deque()

        def collect() -> None:
            answers.append(begun.popleft().answer)
            if on_answer is not None:
                on_answer(answers[-1])

        with contextlib.ExitStack() as stack:
            for question in questions:
                if len(begun) == MAX_BEGUN:
                    collect()
                stream = self._begun(memory, question, history, options, waits=True, caller=caller)
                begun.append(stack.enter_context(stream))
            while begun:
                collect()
        return answers

    def stream(
        self,
        memory: Memory | None,
        question: str,
        *,
        history: History = (),
        caller: Hashable = None,
        **options: Unpack[AskOptions],
    ) -> AnswerStream:
        """Begin an answer, to be read piece by piece in a loop or an asynchronous one; this call does not wait.

            with model.stream(memory, "What is on the desk?") as stream:
                for piece in stream:
                    print(piece, end="", flush=True)

        Args:
            memory, question, history, **options: as for `ask`.
            caller: questions of one caller wait for one another, and callers take turns; by default each question has
                a turn.

        Raises:
            EngineBusy: too many questions wait.
            InputError, ConfigError, MemoryFileError: as `ask`; those that need the model are raised by the stream.
        """
        return self._begun(memory, question, history, options, waits=False, caller=caller)

    def _begun(
        self,
        memory: Memory | None,
        question: str,
        history: History,
        options: AskOptions,
        *,
        waits: bool,
        caller: Hashable = None,
    ) -> AnswerStream:
        state = self._asker.begin(memory, question, history, AskSettings(**options), waits=waits, caller=caller)
        return AnswerStream(state, self._scheduler.wake, keeps=self)

    def choose(
        self, memory: Memory | None, question: str, options: Sequence[str], **subtitles: Unpack[SubtitleOptions]
    ) -> Choice:
        """Multiple choice: the option whose letter the model finds most probable as the answer.

            choice = model.choose(memory, "What is on the desk?", ["a lamp", "a cat"])
            print(choice.letter, choice.option, choice.probabilities)

        Args:
            memory: from `watch`, or loaded; None as for `ask`.
            question: without the options.
            options: 2 to 26 texts.
            **subtitles: as for `ask`.

        Raises:
            InputError: there are fewer than 2 or more than 26 options, one is empty, or a reason of `ask`.
            MemoryFileError, Cancelled: as `ask`.
        """
        return self._asker.choose(memory, question, options, Context((), **subtitles))

    def find(self, memory: Memory, text: str) -> list[Span]:
        """The moments of a video that a question or description is about; no answer is written.

            for span in model.find(memory, "a graph on the whiteboard"):
                print(span.start_seconds, span.end_seconds, span.weight)

        Args:
            memory: from `watch`, or loaded.
            text: a question, or what to look for.

        Returns:
            evidence spans, strongest first.

        Raises:
            InputError, MemoryFileError, Cancelled: as `ask`.
        """
        return self._asker.find(memory, text)

    # ------------------------------------------------------------------------------------------------ the device

    def release(self) -> None:
        """Free the device memory that asking took: keys and values of memories, and the decoder's buffers.

        Answers that are being written keep what they need. The next question makes everything again.
        """
        self._asker.release()

    def close(self) -> None:
        """`release`, and end the engine's thread. Whatever has not ended raises `Cancelled`.

        A later call starts the thread again. A model that nobody holds any more is closed by itself.
        """
        self._watcher.close()  # first: its jobs would put further frames into the queue
        self._scheduler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ask_to_close(watcher: Watcher, scheduler: Scheduler) -> None:
    watcher.ask_to_close()
    scheduler.ask_to_close()
