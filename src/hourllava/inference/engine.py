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

import contextlib
import copy
import dataclasses
import functools
import os
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import numpy as np
import torch
from torch import Tensor

from hourllava.errors import InputError
from hourllava.inference.answers import Answer, Choice
from hourllava.inference.asker import Asker
from hourllava.inference.asking import Context, checked_question
from hourllava.inference.devices import check_fork, usable_device, usable_dtype
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.evidence import Span
from hourllava.inference.frame_encoder import FrameEncoder
from hourllava.inference.growing import VideoPart
from hourllava.inference.memory import Memory
from hourllava.inference.options import AskOptions, AskSettings, History, SubtitleOptions, WatchOptions
from hourllava.inference.progress import OnProgress, Progress, progress_bar
from hourllava.inference.ready import MakeReady, ReadyMemories
from hourllava.inference.scheduler import Scheduler
from hourllava.inference.streams import AnswerStream
from hourllava.inference.watch_job import WatchJob, attend
from hourllava.inference.watching import Watcher
from hourllava.model.checkpoint import load_model
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import NANO, load_nano
from hourllava.model.processor import HourLlavaProcessor
from hourllava.video.child import Stop

OnText = Callable[[str], None]


class HourLlava:
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
        launch = FrameEncoder(model).launch
        self._watcher = Watcher(model, lambda frames: scheduler.encode(functools.partial(launch, frames)))
        self._asker = Asker(model, processor, scheduler, self._watcher.frame_encoder, ReadyMemories(model.model))
        self._owner: HourLlava | None = None  # of the thread, which a copy by `with_ready` keeps alive
        # The thread holds the scheduler, but not this object: it ends when nobody can ask any more.
        weakref.finalize(self, self._scheduler.close)

    def with_ready(self, make_ready: MakeReady) -> "HourLlava":
        """The same model and thread, with another way to make memories ready: for experiments.

            quarter = model.with_ready(functools.partial(make_ready, share=0.25))  # MemAug sees a quarter of the frames

        Args:
            make_ready: in place of `hourllava.inference.ready.make_ready`.
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

    @property
    def encoder(self) -> EncoderIdentity:
        """Identity of this model's vision encoder; `ask` refuses memories of another one."""
        return self._watcher.encoder

    # ------------------------------------------------------------------------------------------------ watching

    def watch(
        self,
        video: str | Path,
        *,
        on_progress: OnProgress | None = None,
        cancel: Stop | None = None,
        progress: bool = True,
        **options: Unpack[WatchOptions],
    ) -> Memory:
        """Watch a video: decode it, encode its frames, keep their features.

            memory = model.watch("lecture.mp4", cache=MemoryCache())
            memory.save("lecture.memory.safetensors")

        A video that another thread watches already, with the same settings, is not watched again: both get the same
        memory. Ctrl-C, and an exception in `on_progress`, end the watching and its processes before they are raised.

        Args:
            video: a video file (docs/sources.md lists the formats), a folder of numbered frames, `-` for standard
                input, or a URL.
            on_progress: called in this thread, at most ten times a second and at the end; not if the cache has the
                memory.
            cancel: an event, such as a `threading.Event`, that another thread sets to end this within one batch of
                frames.
            progress: whether to show a progress bar on stderr.
            **options: see `WatchOptions`.

        Returns:
            the memory of `options` if it was given, else a new one.

        Raises:
            VideoError: the video cannot be read, shows nothing in that part, or changed while it was read.
            MemoryFileError: `memory` is of another video, encoder or frame rate.
            ConfigError: a number is outside what is allowed.
            InputError: the features are not finite: the weights are damaged.
            Cancelled: `cancel` was set.
        """
        job = self.start_watch(video, **options)
        with progress_bar(progress) as show:

            def tell(now: Progress) -> None:
                show(now)
                if on_progress is not None:
                    on_progress(now)

            return attend(job, tell, cancel)

    def start_watch(
        self, video: str | Path, *, keeps_running: bool = False, **options: Unpack[WatchOptions]
    ) -> WatchJob:
        """Begin to watch a video in a thread of its own, or join the job that watches it already.

            job = model.start_watch("lecture.mp4")
            memory = job.result()

        Args:
            video: as for `watch`.
            keeps_running: whether the job goes on when all callers have cancelled.
            **options: see `WatchOptions`.

        Raises:
            VideoError: there is no such video; what is found later is raised by `WatchJob.result`.
            MemoryFileError, ConfigError: as `watch`.
        """
        others: dict[str, Any] = dict(options)
        names = {field.name for field in dataclasses.fields(VideoPart)} & others.keys()
        part = VideoPart(video, **{name: others.pop(name) for name in names})
        return self._watcher.start(part, keeps_running=keeps_running, **others)

    def follow(
        self,
        video: str | Path,
        *,
        fps: float = 1.0,
        allow_network: bool = False,
        allow_playlists: bool = False,
        num_processes: int | None = None,
        on_progress: OnProgress | None = None,
        cancel: Stop | None = None,
    ) -> Iterator[Memory]:
        """Watch a live source or a long file, and yield the growing memory after every batch of frames.

            for memory in model.follow("-"):  # standard input
                print(model.ask(memory, "What has just happened?").text)

        Any thread may ask about it at any time; an answer is about the frames that it has at that moment. Leaving the
        loop, or `close()`, ends the watching and its processes at once. The memory grows without bound, by 0.53 GB an
        hour at 1 FPS with the published models' tower, and takes up to three times that while it moves to a larger
        buffer: stop iterating when it is long enough.

        Args:
            video: as for `watch`.
            fps: frames sampled per second.
            allow_network, allow_playlists, num_processes: as for `watch`.
            on_progress: called in the thread that iterates, after every batch of frames.
            cancel: an event that another thread sets to end this, also while no frame comes.

        Yields:
            the same memory, longer each time.

        Raises:
            VideoError, ConfigError, InputError, Cancelled: as `watch`.
        """
        part = VideoPart(video, fps, allow_network=allow_network, allow_playlists=allow_playlists)
        return self._watcher.follow(part, on_progress=on_progress, cancel=cancel, num_processes=num_processes)

    def remember_frames(
        self, frames: Tensor | np.ndarray, timestamps_seconds: Sequence[float], *, duration_seconds: float | None = None
    ) -> Memory:
        """Make a memory of frames that the caller has.

        Args:
            frames: uint8 RGB [T, H, W, 3].
            timestamps_seconds: [T] when each frame appears, increasing, on any clock; evidence is on the same clock.
            duration_seconds: from the first frame to the end of the last one; by default the last frame stays for the
                median step.

        Raises:
            InputError: there are no frames, they have another form, or their number differs from that of the times.
        """
        return self._watcher.remember_frames(frames, timestamps_seconds, duration_seconds)

    # ------------------------------------------------------------------------------------------------ asking

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
            memory: as for `ask`.
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
        caller, answers = object(), []
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(self._begun(memory, question, history, options, waits=True, caller=caller))
                for question in questions
            ]
            for stream in streams:
                answers.append(stream.answer)
                if on_answer is not None:
                    on_answer(answers[-1])
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
        self._scheduler.close()
        self._asker.ready.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
