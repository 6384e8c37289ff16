"""Watch a video once, ask it anything.

    model = HourLlava.from_pretrained("nano")
    memory = model.watch("lecture.mp4")
    answer = model.ask(memory, "When is the first graph shown?")
    print(answer.text, answer.evidence)

The library, the command and the server all go this way. Greedy decoding, and forgetting that is seeded by the video,
make answers repeatable: the same question about the same memory gets the same answer if it is asked alone, on the same
device and in the same dtype. All times that a caller gives or gets (`start_seconds`, evidence, subtitles) are on the
player's clock, see `Memory`.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from hourllava.choices import LETTERS, choice_prompt
from hourllava.errors import InputError
from hourllava.inference.answers import Answer, Choice, collect_answers
from hourllava.inference.asking import (
    DEFAULT_SUBTITLE_TOKENS,
    AskOptions,
    Context,
    History,
    OnText,
    PromptMaker,
    checked_questions,
    room_after,
)
from hourllava.inference.cache import MemoryCache
from hourllava.inference.decoding import Sampler, TextDecoder, generate_tokens
from hourllava.inference.devices import check_fork, usable_device, usable_dtype
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.growing import VideoPart
from hourllava.inference.memory import Memory
from hourllava.inference.one_at_a_time import OneAtATime
from hourllava.inference.progress import OnProgress, Progress, progress_bar
from hourllava.inference.ready import ReadyMemory, make_ready
from hourllava.inference.snapshot import MemorySnapshot
from hourllava.inference.subtitles import Cue
from hourllava.inference.text import whole_text
from hourllava.inference.watch_job import WatchJob, attend
from hourllava.inference.watching import Watcher
from hourllava.model.checkpoint import load_model
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import NANO, load_nano
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.trunk import HourLlavaModel
from hourllava.video.child import Stop

DEFAULT_MAX_NEW_TOKENS = 512


class HourLlava:
    """A model with everything needed to watch videos and to ask about them.

    Threads may share it: `ask`, `choose` and `release` run one at a time, and a thread waits for the calls of the
    others. A memory may grow meanwhile: an answer is about the frames that it had when the call began.

        model = HourLlava.from_pretrained("nano")
        memory = model.watch("lecture.mp4")
        print(model.ask(memory, "When is the first graph shown?").text)

    Args:
        model: in evaluation mode, on its device.
        processor: of the same model.
        make_ready: projects a memory before its first question. Experiments give another one, for example
            `functools.partial(make_ready, share=0.25)` with `hourllava.inference.ready.make_ready`, which leaves MemAug
            a quarter of the frames.

    Attributes:
        model: as given.
        processor: as given.
    """

    def __init__(
        self,
        model: HourLlavaForConditionalGeneration,
        processor: HourLlavaProcessor,
        *,
        make_ready: Callable[[MemorySnapshot, HourLlavaModel], ReadyMemory] = make_ready,
    ) -> None:
        self.model = model
        self.processor = processor
        self._watcher = Watcher(model)
        self._prompts = PromptMaker(model, processor)
        self._decoder = TextDecoder(model)
        self._make_ready = make_ready
        self._ready: ReadyMemory | None = None
        self._process = os.getpid()
        # The decoder's buffers and the ready memory serve one call at a time.
        self._calls = OneAtATime()

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
        digest: str | None = None,
        num_processes: int | None = None,
        on_progress: OnProgress | None = None,
        cancel: Stop | None = None,
        progress: bool = True,
    ) -> Memory:
        """Watch a video: decode it, encode its frames, keep their features.

            memory = model.watch("lecture.mp4", cache=MemoryCache())
            memory.save("lecture.memory.safetensors")

        A video that another thread watches already, with the same settings, is not watched again: both get the same
        memory. Ctrl-C, and an exception in `on_progress`, end the watching and its processes before they are raised.

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
            digest: a text that stands for the content of the video, from a caller who knows it; by default it is
                computed, see `hourllava.video.source_digest`.
            num_processes: that decode, at most. All videos that a model watches share one process for each usable
                core, 16 at most; each has at least one.
            on_progress: called in this thread, at most ten times a second and at the end; not if the cache has the
                memory.
            cancel: an event, such as a `threading.Event`, that another thread sets to end this within one batch of
                frames.
            progress: whether to show a progress bar on stderr.

        Returns:
            `memory` if it was given, else a new one.

        Raises:
            VideoError: the video cannot be read, shows nothing in that part, or changed while it was read.
            MemoryFileError: `memory` is of another video, encoder or frame rate.
            ConfigError: a number is outside what is allowed.
            InputError: the features are not finite: the weights are damaged.
            Cancelled: `cancel` was set.
        """
        part = VideoPart(video, fps, start_seconds, end_seconds, allow_network, allow_playlists)
        job = self._watcher.start(part, memory=memory, cache=cache, digest=digest, num_processes=num_processes)
        with progress_bar(progress) as show:

            def tell(now: Progress) -> None:
                show(now)
                if on_progress is not None:
                    on_progress(now)

            return attend(job, tell, cancel)

    def start_watch(
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
        digest: str | None = None,
        num_processes: int | None = None,
        keeps_running: bool = False,
    ) -> WatchJob:
        """Begin to watch a video in a thread of its own, or join the job that watches it already.

            job = model.start_watch("lecture.mp4")
            memory = job.result()

        Args:
            video, fps, start_seconds, end_seconds, memory, cache: as for `watch`.
            allow_network, allow_playlists, digest, num_processes: as for `watch`.
            keeps_running: whether the job goes on when all callers have cancelled.

        Raises:
            VideoError: there is no such video; what is found later is raised by `WatchJob.result`.
            MemoryFileError, ConfigError: as `watch`.
        """
        part = VideoPart(video, fps, start_seconds, end_seconds, allow_network, allow_playlists)
        return self._watcher.start(
            part,
            memory=memory,
            cache=cache,
            digest=digest,
            num_processes=num_processes,
            keeps_running=keeps_running,
        )

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

    @overload
    def ask(
        self, memory: Memory | None, question: str, *, history: History = (), **options: Unpack[AskOptions]
    ) -> Answer: ...

    @overload
    def ask(
        self,
        memory: Memory | None,
        question: list[str] | tuple[str, ...],
        *,
        history: History = (),
        **options: Unpack[AskOptions],
    ) -> list[Answer]: ...

    def ask(
        self,
        memory: Memory | None,
        question: str | Sequence[str],
        *,
        history: History = (),
        subtitles: Sequence[Cue] = (),
        subtitle_tokens: int = DEFAULT_SUBTITLE_TOKENS,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Answer | list[Answer]:
        """Answer one question about a memory, or several as one batch.

            answer = model.ask(memory, "When is the first graph shown?")
            first, second = model.ask(memory, ["Who speaks?", "What is on the desk?"])

        Args:
            memory: from `watch`, or loaded. None asks the language model alone, without video and evidence.
            question: one question, or a list of them.
            history: (question, answer) pairs of the conversation so far.
            subtitles: what is said in the video. Those around the question's evidence become part of its prompt;
                without a memory, the earliest.
            subtitle_tokens: tokens that subtitles may take.
            max_new_tokens: tokens that an answer may have. The model's context limits them too; an answer that is cut
                by either has `finish_reason` "length".
            temperature, top_p, seed: see `Sampler`; temperature 0 always takes the likeliest token.
            on_text: called with each new piece of the answer's text (one question only). It must not call the same
                model.

        Returns:
            an `Answer`; a list of answers if a list of questions was given.

        Raises:
            InputError: a question is empty, the prompt is longer than the model's context, the memory has no frames, or
                `max_new_tokens` is below 1.
            ConfigError: temperature, top_p or seed is outside what is allowed.
            MemoryFileError: the memory was made by another encoder, or its file was written to.
        """
        with self._calls.alone():
            questions = checked_questions(question)
            context = Context(history, subtitles, subtitle_tokens)
            sampler = Sampler(temperature, top_p, seed)
            answers = self._answer(memory, questions, context, max_new_tokens, sampler, on_text)
        return answers[0] if isinstance(question, str) else answers

    @torch.inference_mode()
    def choose(
        self,
        memory: Memory | None,
        question: str,
        options: Sequence[str],
        *,
        subtitles: Sequence[Cue] = (),
        subtitle_tokens: int = DEFAULT_SUBTITLE_TOKENS,
    ) -> Choice:
        """Multiple choice: the option whose letter the model finds most probable as the answer.

            choice = model.choose(memory, "What is on the desk?", ["a lamp", "a cat"])
            print(choice.letter, choice.option, choice.probabilities)

        Args:
            memory: from `watch`, or loaded; None as for `ask`.
            question: without the options.
            options: 2 to 26 texts.
            subtitles, subtitle_tokens: as for `ask`.

        Raises:
            InputError: there are fewer than 2 or more than 26 options, one is empty, or a reason of `ask`.
            MemoryFileError: as `ask`.
        """
        with self._calls.alone():
            (question,) = checked_questions(question, max_questions=1)
            if not 2 <= len(options) <= len(LETTERS):
                raise InputError(f"a choice needs 2 to {len(LETTERS)} options, got {len(options)}")
            options = [whole_text(option) for option in options]
            if not all(option.strip() for option in options):
                raise InputError("an option is empty; give each a text")
            text = choice_prompt(question, options)
            context = Context((), subtitles, subtitle_tokens)
            prompt = self._prompts.prompt(self._ready_memory(memory), [question], [text], context)
            logits_V = self._decoder.prefill(prompt.embeds, prompt.attention_mask, 0)[0]
        letters = LETTERS[: len(options)]
        letter_ids = [self.processor.tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in letters]
        probabilities = logits_V[letter_ids].float().softmax(-1).tolist()
        best = int(np.argmax(probabilities))
        return Choice(question, options[best], letters[best], probabilities, prompt.evidence[0])

    def release(self) -> None:
        """Free the device memory that asking took: keys and values of the last memory, and the decoder's buffers.

        The next question makes them again.

        Raises:
            InputError: called inside `on_text`.
        """
        with self._calls.alone():
            self._ready = None
            self._decoder.release()

    def _ready_memory(self, memory: Memory | None) -> ReadyMemory | None:
        """The memory with keys and values; those of the last memory asked are kept."""
        check_fork(self._process, self.model.device)
        if memory is None:
            return None
        snapshot = memory.snapshot()
        if not len(snapshot):
            raise InputError(f"the memory of {snapshot.source.file_name} holds no frames yet; watch something first")
        snapshot.check_file_unchanged()
        ready = self._ready
        if ready is None or ready.memory is not snapshot:
            snapshot.check_fits(self.encoder)
            self._ready = None  # free the old one first
            ready = self._ready = self._make_ready(snapshot, self.model.model)
        return ready

    def _answer(
        self,
        memory: Memory | None,
        questions: Sequence[str],
        context: Context,
        max_new_tokens: int,
        sampler: Sampler,
        on_text: OnText | None,
    ) -> list[Answer]:
        started = time.perf_counter()
        if on_text is not None and len(questions) != 1:
            raise InputError(f"text can be streamed for one question at a time, got {len(questions)}")
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}; an answer needs 1 or more")
        prompt = self._prompts.prompt(self._ready_memory(memory), questions, questions, context)
        max_new_tokens = min(max_new_tokens, room_after(prompt, self.model.config))
        steps = generate_tokens(
            self._decoder,
            prompt.embeds,
            prompt.attention_mask,
            stop_ids=self.processor.stop_ids,
            max_new_tokens=max_new_tokens,
            sampler=sampler,
        )
        return collect_answers(
            prompt, questions, steps, self.processor.decode, max_new_tokens, on_text=on_text, started=started
        )
