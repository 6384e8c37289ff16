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
import functools
import os
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import numpy as np
import torch
from torch import Tensor

from hourllava.choices import LETTERS, choice_prompt
from hourllava.errors import InputError
from hourllava.inference.answers import Answer, Choice
from hourllava.inference.asking import Context, Prompt, PromptMaker, checked_question, room_after
from hourllava.inference.cache import MemoryCache
from hourllava.inference.devices import check_fork, usable_device, usable_dtype
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.evidence import Span
from hourllava.inference.frame_encoder import FrameEncoder
from hourllava.inference.memory import Memory
from hourllava.inference.options import AskOptions, AskSettings, History, SubtitleOptions
from hourllava.inference.prefill import prefill
from hourllava.inference.ready import MakeReady, ReadyMemories
from hourllava.inference.scheduler import Question, Scheduler
from hourllava.inference.streams import AnswerState, AnswerStream
from hourllava.inference.text import whole_text
from hourllava.inference.watching import VideoPart, Watcher
from hourllava.model.checkpoint import load_model
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import NANO, load_nano
from hourllava.model.processor import HourLlavaProcessor

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
        self._prompts = PromptMaker(model, processor)
        self._ready = ReadyMemories(model.model)
        self._scheduler = scheduler = Scheduler(model, processor.stop_ids)
        launch = FrameEncoder(model).launch
        self._watcher = Watcher(model, lambda frames: scheduler.encode(functools.partial(launch, frames)))
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
        other._ready = ReadyMemories(self.model.model, make_ready)
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
        fps: float = 1.0,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        memory: Memory | None = None,
        cache: MemoryCache | None = None,
        allow_network: bool = False,
        allow_playlists: bool = False,
        progress: bool = True,
    ) -> Memory:
        """Watch a video: decode it, encode its frames, keep their features.

            memory = model.watch("lecture.mp4", cache=MemoryCache())
            memory.save("lecture.memory.safetensors")

        Args:
            video: a video file (docs/sources.md lists the formats), a folder of numbered frames, `-` for standard
                input, or a URL.
            fps: frames sampled per second.
            start_seconds, end_seconds: the part to watch, on the player's clock; by default all of the video.
            memory: of an earlier, shorter state of the same video. Only new frames are appended to it; its last four
                frames are read again and compared. `start_seconds` is ignored then.
            cache: holds memories of earlier calls, and keeps this one. A pipe, a playlist, and a URL whose server
                sends neither a date nor a tag have no identity, so their memories are not kept.
            allow_network: whether a URL may be opened.
            allow_playlists: whether a playlist may be opened, a file that names other files or addresses.
            progress: whether to show a progress bar on stderr.

        Returns:
            `memory` if it was given, else a new one.

        Raises:
            VideoError: the video cannot be read, shows nothing in that part, or changed while it was read.
            MemoryFileError: `memory` is of another video, encoder or frame rate.
            ConfigError: a number is outside what is allowed.
            InputError: the features are not finite: the weights are damaged.
        """
        part = VideoPart(video, fps, start_seconds, end_seconds, allow_network, allow_playlists)
        return self._watcher.watch(part, memory=memory, cache=cache, progress=progress)

    def follow(
        self,
        video: str | Path,
        *,
        fps: float = 1.0,
        allow_network: bool = False,
        allow_playlists: bool = False,
        progress: bool = False,
    ) -> Iterator[Memory]:
        """Watch a live source or a long file, and yield the growing memory after every batch of frames.

            for memory in model.follow("-"):  # standard input
                print(model.ask(memory, "What has just happened?").text)

        Ask about it between two batches, in the thread that iterates. The memory grows without bound, by 0.53 GB an
        hour at 1 FPS with the published models' tower, and takes up to three times that while it moves to a larger
        buffer: stop iterating when it is long enough.

        Args:
            video: as for `watch`.
            fps: frames sampled per second.
            allow_network, allow_playlists: as for `watch`.
            progress: whether to show a progress bar on stderr.

        Yields:
            the same memory, longer each time.

        Raises:
            VideoError, ConfigError, InputError: as `watch`.
        """
        part = VideoPart(video, fps, allow_network=allow_network, allow_playlists=allow_playlists)
        yield from self._watcher.follow(part, progress=progress)

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
        with self._submitted(memory, question, history, options, waits=True) as stream:
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
                stack.enter_context(self._submitted(memory, question, history, options, waits=True, caller=caller))
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
        return self._submitted(memory, question, history, options, waits=False, caller=caller)

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
        question = checked_question(question)
        if not 2 <= len(options) <= len(LETTERS):
            raise InputError(f"a choice needs 2 to {len(LETTERS)} options, got {len(options)}")
        options = [whole_text(option) for option in options]
        if not all(option.strip() for option in options):
            raise InputError("an option is empty; give each a text")
        letters = LETTERS[: len(options)]
        letter_ids = [self.processor.tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in letters]
        make_prompt = self._prompt_maker(memory, question, choice_prompt(question, options), Context((), **subtitles))

        def work() -> tuple[list[float], list[Span]]:
            prompt = make_prompt()
            room_after(prompt, self.model.config)
            logits_V = prefill(self.model, prompt.take_embeds()).logits_V
            return logits_V[letter_ids].float().softmax(-1).tolist(), prompt.evidence()

        probabilities, evidence = self._scheduler.run(work)
        best = int(np.argmax(probabilities))
        return Choice(question, options[best], letters[best], probabilities, evidence)

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
        text = checked_question(text)
        make_prompt = self._prompt_maker(memory, text, text, Context())
        return self._scheduler.run(lambda: make_prompt().evidence())

    # ------------------------------------------------------------------------------------------------ the device

    def release(self) -> None:
        """Free the device memory that asking took: keys and values of memories, and the decoder's buffers.

        Answers that are being written keep what they need. The next question makes everything again.
        """
        self._scheduler.run(self._release)

    def close(self) -> None:
        """`release`, and end the engine's thread. Whatever has not ended raises `Cancelled`.

        A later call starts the thread again. A model that nobody holds any more is closed by itself.
        """
        self._scheduler.close()
        self._ready.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        self._ready.release()
        self._scheduler.release_rows()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _submitted(
        self,
        memory: Memory | None,
        question: str,
        history: History,
        options: AskOptions,
        *,
        waits: bool,
        caller: Hashable = None,
    ) -> AnswerStream:
        question = checked_question(question)
        settings = AskSettings(**options)
        context = Context(history, settings.subtitles, settings.subtitle_tokens)
        state = AnswerState(question, self.processor.decode, settings.stop)
        waiting = Question(
            self._prompt_maker(memory, question, question, context),
            state,
            settings.max_new_tokens,
            settings.sampling,
        )
        self._scheduler.ask(waiting, caller, waits=waits)
        return AnswerStream(state, self._scheduler.wake, keeps=self)

    def _prompt_maker(self, memory: Memory | None, question: str, text: str, context: Context) -> Callable[[], Prompt]:
        """Work for the engine's thread: the prompt, about the memory as it is now."""
        snapshot = None
        if memory is not None:
            snapshot = memory.snapshot()
            if not len(snapshot):
                raise InputError(f"the memory of {memory.source.file_name} holds no frames yet; watch something first")
            snapshot.check_fits(self.encoder)

        def make() -> Prompt:
            ready = None
            if memory is not None and snapshot is not None:
                snapshot.check_file_unchanged()
                ready = self._ready.get(memory, snapshot)
            return self._prompts.prompt(ready, question, text, context)

        return make
