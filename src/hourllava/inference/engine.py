"""Watch a video once, ask it anything.

    model = HourLlava.from_pretrained("nano")
    memory = model.watch("lecture.mp4")
    answer = model.ask(memory, "When is the first graph shown?")
    print(answer.text, answer.evidence)

The library, the command and the server all go this way. Greedy decoding and forgetting that is seeded by the video make
answers repeatable: the same question on the same memory gets the same answer, if it is asked alone, on the same device
and in the same dtype. Times that the caller gives or gets (`start_seconds`, evidence, subtitles) are on the player's
clock, see `Memory`.
"""

import dataclasses
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hourllava.choices import LETTERS, choice_prompt
from hourllava.errors import ConfigError, InputError, MemoryFileError, VideoError
from hourllava.inference.answers import Answer, Choice
from hourllava.inference.cache import MemoryCache
from hourllava.inference.chat import Chat
from hourllava.inference.continuing import num_remembered, resume_seconds
from hourllava.inference.decoding import Sampler, TextDecoder, generate_tokens
from hourllava.inference.devices import check_fork, usable_device, usable_dtype
from hourllava.inference.encoder import EncoderIdentity, encoder_identity
from hourllava.inference.evidence import AttentionMass, Span, shown_from_seconds, spans_of
from hourllava.inference.memory import Memory, WatchedSource
from hourllava.inference.ready import ReadyMemory, keep_for_question, make_ready
from hourllava.inference.subtitles import Cue, subtitles_prompt
from hourllava.inference.text import whole_text
from hourllava.model.checkpoint import load_model
from hourllava.model.memaug import ProjectedMemory
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import NANO, load_nano
from hourllava.model.processor import HourLlavaProcessor, Video
from hourllava.model.vision import frame_pixels
from hourllava.video import FrameReader, read_frames, shown_name, source_state
from hourllava.video.reader import BATCH_FRAMES, check_sampling
from hourllava.video.source import SourceKind

DEFAULT_MAX_NEW_TOKENS = 512
DEFAULT_SUBTITLE_TOKENS = 2048

logger = logging.getLogger(__name__)

OnText = Callable[[str], None]
History = Sequence[tuple[str, str]]
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _one_at_a_time(
    method: Callable[Concatenate["HourLlava", _Arguments], _Result],
) -> Callable[Concatenate["HourLlava", _Arguments], _Result]:
    """Let other threads wait until an answer is complete; refuse a call from inside one (`on_text`)."""

    @functools.wraps(method)
    def alone(self: "HourLlava", /, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        if self._asking_thread == threading.get_ident() and self._lock_process == os.getpid():
            raise InputError("a model cannot be asked inside on_text, amid its answer; ask when the answer is complete")
        if self._lock_process != os.getpid():  # forked: a thread that held the lock is not here to free it
            self._lock, self._lock_process, self._asking_thread = threading.Lock(), os.getpid(), None
        with self._lock:
            self._asking_thread = threading.get_ident()
            try:
                return method(self, *arguments, **options)
            finally:
                self._asking_thread = None

    return alone


class HourLlava:
    """A model with everything needed to use it.

    Threads may share it: `ask`, `choose` and `release` go one after the other, so a thread waits for the answers of the
    others. A memory must not be appended to by one thread while another asks about it.

    Args:
        model: in evaluation mode, on its device.
        processor: of the same model.
        memory_share: of the frames that MemAug finds in the memory, besides the kept tokens; less than 1 is for
            experiments, see `recall.thinned`.

    Raises:
        ConfigError: `memory_share` is outside 0 to 1, or below 1 where forgetting depends on the question.
    """

    def __init__(
        self, model: HourLlavaForConditionalGeneration, processor: HourLlavaProcessor, *, memory_share: float = 1.0
    ) -> None:
        if not 0 <= memory_share <= 1:
            raise ConfigError(f"memory_share is {memory_share:g}; use 0 (kept tokens only) to 1 (all of the memory)")
        if memory_share < 1 and model.config.forgetting.temporal == "question":
            raise ConfigError("memory_share below 1 needs the same kept tokens for all questions; keep 1 with question")
        self.model = model
        self.processor = processor
        self.memory_share = memory_share
        self._decoder = TextDecoder(model)
        self._ready: ReadyMemory | None = None
        self._process = os.getpid()
        # The decoder's buffers and the ready memory serve one call at a time.
        self._lock, self._lock_process = threading.Lock(), os.getpid()
        self._asking_thread: int | None = None

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
            name: `"nano"` (in the package), a folder of any layout, or a name on the Hugging Face hub.
            device: a GPU if there is one, else the CPU.
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

    @functools.cached_property
    def encoder(self) -> EncoderIdentity:
        """What makes this model's features; memories of another encoder are refused."""
        check_fork(self._process, self.model.device)
        return encoder_identity(self.model.model)

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
        """Remember a video: decode, encode, keep.

        Args:
            video: a video file (docs/sources.md lists the formats), a folder of numbered frames, `-` for standard
                input, or a URL.
            fps: frames a second.
            start_seconds, end_seconds: the part to watch, as a player shows the time; all of it by default.
            memory: of an earlier, shorter state of the same video: only what is new is watched and appended. Its last
                four frames are watched again and compared. `start_seconds` does not matter then.
            cache: look there first, and leave the memory there. A pipe, a playlist, and an address whose server gives
                neither date nor tag have no identity and are not kept.
            allow_network: whether a URL may be opened.
            allow_playlists: whether a playlist may be opened, a file that names other files or addresses.
            progress: show a progress bar on stderr.

        Raises:
            VideoError: the video cannot be read, holds nothing in that part, or changed while it was read.
            MemoryFileError: `memory` is of another video, encoder or frame rate.
            InputError: the features are not finite: the weights are damaged.
        """
        check_sampling(fps, start_seconds, end_seconds)
        # Before anything is read: what is kept under this digest must be of the content that was hashed.
        state = source_state(
            video,
            allow_network=allow_network,
            allow_playlists=allow_playlists,
            ask_server=cache is not None and memory is None,
        )
        key = None
        if memory is not None:
            memory.check_fits(self.encoder, fps=fps)
        elif cache is not None and state.digest is not None:
            key = cache.key(state.digest, fps, self.encoder, start_seconds, end_seconds)
            cached = cache.get(key)
            if cached is not None:
                if state.source.kind is not SourceKind.URL:
                    state.is_unchanged()  # raises: it would be the memory of another file than is there now
                return cached
        elif cache is not None:
            logger.warning("the memory is not kept: nothing tells which content %s holds", state.source.location)
        source = WatchedSource(shown_name(video), state.digest)
        may_open = {"allow_network": allow_network, "allow_playlists": allow_playlists}
        for longer in self._read(video, fps, start_seconds, end_seconds, memory, source, may_open, progress):
            memory = longer
            memory.source = source
        if memory is None:
            raise VideoError(
                f"{shown_name(video)} shows nothing from {start_seconds:g} s to "
                f"{'its end' if end_seconds is None else f'{end_seconds:g} s'}; choose another part"
            )
        if state.digest is not None and not state.is_unchanged():
            memory.source = WatchedSource(source.name, None)
            if key is not None:
                logger.warning("the memory is not kept: %s grew or changed while it was read", source.name)
            key = None
        if cache is not None and key is not None:
            try:
                cache.put(key, memory)
            except MemoryFileError as error:  # a full disk must not cost the answer
                logger.warning("the memory is not kept for the next time: %s", error)
        return memory

    def follow(
        self,
        video: str | Path,
        *,
        fps: float = 1.0,
        allow_network: bool = False,
        allow_playlists: bool = False,
        progress: bool = False,
    ) -> Iterator[Memory]:
        """Watch a live source or a long file, giving the growing memory after every batch.

        Ask about it between two batches, in the thread that iterates. It grows without bound, by 0.53 GB an hour at 1
        FPS with the published models' tower, and takes up to three times that while it is moved to more room: stop
        iterating when it is long enough.

        Args:
            video: as for `watch`.
            fps: frames a second.
            allow_network, allow_playlists: as for `watch`.
            progress: show a progress bar on stderr.

        Yields:
            the same memory, a little longer each time.
        """
        source = WatchedSource(shown_name(video), None)
        may_open = {"allow_network": allow_network, "allow_playlists": allow_playlists}
        yield from self._read(video, fps, 0.0, None, None, source, may_open, progress)

    def remember_frames(
        self, frames: Tensor | np.ndarray, timestamps_seconds: Sequence[float], *, duration_seconds: float | None = None
    ) -> Memory:
        """A memory of frames the caller has.

        Args:
            frames: uint8 RGB [T, H, W, 3].
            timestamps_seconds: [T] when each is shown, increasing, on any clock: evidence is on the same.
            duration_seconds: from the first frame to the end of the last one; by default the last one stays for the
                median step.

        Raises:
            InputError: frames and times do not fit, or are none.
        """
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype not in (torch.uint8, np.uint8):
            raise InputError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        times = np.asarray(timestamps_seconds, np.float64)
        if len(times) != len(frames) or not len(times):
            raise InputError(
                f"got {len(frames)} frames and {len(times)} times; give one time for each frame, at least one"
            )
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        return Memory(
            features=torch.cat([self._encode(part) for part in torch.as_tensor(frames).split(BATCH_FRAMES)]),
            timestamps_seconds=times,
            sample_seconds=times,
            fps=1.0 / step if step > 0 else 1.0,
            duration_seconds=float(times[-1] - times[0] + step) if duration_seconds is None else duration_seconds,
            source=WatchedSource("frames", None),
            encoder=self.encoder,
        )

    def _read(
        self,
        video: str | Path,
        fps: float,
        start_seconds: float,
        end_seconds: float | None,
        memory: Memory | None,
        source: WatchedSource,
        may_open: dict[str, bool],
        progress: bool,
    ) -> Iterator[Memory]:
        """Frames in batches, encoded and appended to `memory` (made with the first batch), which is given each time."""
        old = memory if memory is not None and len(memory) else None
        reader, start_seconds, end_seconds = self._open(video, fps, start_seconds, end_seconds, old, may_open)
        offset = reader.info.player_offset_seconds
        with reader, self._progress_bar(reader, fps, start_seconds, end_seconds, progress) as bar:
            for batch in reader:
                features = self._encode(torch.from_numpy(batch.frames))
                bar.update(len(batch))
                new = slice(0, None)
                if old is not None:
                    new, old = slice(num_remembered(old, features, batch), None), None
                    if new.start == len(batch):
                        continue
                first_seconds = float((memory if memory else batch).sample_seconds[0])
                shown_until = float(batch.sample_seconds[-1]) + 1.0 / fps
                known_end = reader.info.duration_seconds
                duration = (shown_until if known_end is None else min(shown_until, known_end)) - first_seconds
                if memory is None:
                    memory = Memory(
                        features=features,
                        timestamps_seconds=batch.timestamps_seconds,
                        sample_seconds=batch.sample_seconds,
                        fps=fps,
                        duration_seconds=duration,
                        source=source,
                        encoder=self.encoder,
                        player_offset_seconds=offset,
                    )
                else:
                    memory.player_offset_seconds = offset
                    memory.append(
                        features[new],
                        batch.timestamps_seconds[new],
                        batch.sample_seconds[new],
                        duration_seconds=duration,
                    )
                yield memory
            if old is not None:
                num_remembered(old, torch.empty(0), None)
            if memory is not None:
                memory.gaps = (*memory.gaps, *(gap for gap in reader.gaps if gap not in memory.gaps))

    def _open(
        self,
        video: str | Path,
        fps: float,
        start_seconds: float,
        end_seconds: float | None,
        memory: Memory | None,
        may_open: dict[str, bool],
    ) -> tuple[FrameReader, float, float | None]:
        """A reader of a part that is given in the player's time, and that part as the reader counts.

        With a memory: from its last frames on, which come again to be compared.
        """
        size = self.model.config.vision_config.image_size

        def read(start: float, end: float | None) -> FrameReader:
            return read_frames(
                video, fps=fps, start_seconds=start, end_seconds=end, size_pixels=(size, size), **may_open
            )

        def part(offset_seconds: float) -> tuple[float, float | None]:
            start = max(0.0, start_seconds - offset_seconds)
            end = None if end_seconds is None else max(0.0, end_seconds - offset_seconds)
            if memory is not None:
                start = max(0.0, resume_seconds(memory))
                end = None if end is None else max(end, float(memory.sample_seconds[-1]) + 0.5 / fps)
            return start, end

        reader = read(*part(0.0))
        exact = part(reader.info.player_offset_seconds)
        if exact != part(0.0):  # only now it is known that sound comes before the first picture
            reader.close()
            if reader.info.is_live:
                raise VideoError(
                    f"{shown_name(video)} can be read once only, and its sound begins before its pictures, so a part "
                    "of it cannot be found: save it to a file, or watch all of it"
                )
            reader = read(*exact)
        return reader, *exact

    @staticmethod
    def _progress_bar(
        reader: FrameReader, fps: float, start_seconds: float, end_seconds: float | None, progress: bool
    ) -> tqdm:
        end = reader.info.duration_seconds if end_seconds is None else end_seconds
        total = None if end is None else max(1, round((end - start_seconds) * fps))
        return tqdm(total=total, unit="frame", desc="watching", disable=not progress)

    @torch.inference_mode()
    def _encode(self, frames_NHW3: Tensor) -> Tensor:
        """uint8 frames -> [N, grid * grid, C] pooled features on the CPU, in bfloat16 as memories keep them."""
        check_fork(self._process, self.model.device)
        pixels = frame_pixels(frames_NHW3.to(self.model.device), self.model.config)
        features: Tensor = self.model.model.get_video_features(pixels).pooler_output
        return features.bfloat16().cpu()

    # ------------------------------------------------------------------------------------------------ asking

    @_one_at_a_time
    def ask(
        self,
        memory: Memory | None,
        question: str | Sequence[str],
        *,
        subtitles: Sequence[Cue] = (),
        subtitle_tokens: int = DEFAULT_SUBTITLE_TOKENS,
        history: History = (),
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Any:
        """Answer a question about a memory, or several at once.

        Args:
            memory: from `watch`, or loaded; None asks the language model alone, there is no evidence then.
            question: one, or several that are answered as one batch over the same memory.
            subtitles: what is said in the video; those around the question's evidence go into its prompt, without a
                memory the earliest.
            subtitle_tokens: most tokens of them.
            history: earlier questions and answers of the conversation.
            max_new_tokens: most tokens of an answer. It has at most the tokens that the prompt leaves of the model's
                context; an answer that is cut there has `finish_reason` "length", too.
            temperature, top_p, seed: see `Sampler`; 0 always takes the likeliest token.
            on_text: is called with each new piece of the answer's text (one question only). It must not ask the same
                model.

        Returns:
            an `Answer`, or a list of them if several questions were given.

        Raises:
            InputError: an empty question, more text than the model takes, a memory without frames, `max_new_tokens`
                below 1.
            ConfigError: temperature, top_p or seed is outside what is allowed.
            MemoryFileError: the memory was made by another encoder, or its file was written to.
        """
        started = time.perf_counter()
        questions = _checked_questions(question)
        if on_text is not None and len(questions) != 1:
            raise InputError(f"text can be streamed for one question at a time, got {len(questions)}")
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}; an answer needs 1 or more")
        sampler = Sampler(temperature, top_p, seed)
        prompt = self._prompt(memory, questions, questions, subtitles, subtitle_tokens, history)
        max_new_tokens = min(max_new_tokens, self._room_after(prompt))
        rows: list[list[int]] = [[] for _ in questions]
        written = ""
        first_token_seconds = 0.0
        tokens = generate_tokens(
            self._decoder,
            prompt.embeds,
            prompt.attention_mask,
            stop_ids=self.processor.stop_ids,
            max_new_tokens=max_new_tokens,
            sampler=sampler,
        )
        for step in tokens:
            first_token_seconds = first_token_seconds or time.perf_counter() - started
            for row, token in zip(rows, step):
                if token is not None:
                    row.append(token)
            if on_text is not None:
                text = self.processor.decode(rows[0])
                # An unfinished character shows as U+FFFD; wait for the rest of it.
                if len(text) > len(written) and not text.endswith("\ufffd"):
                    on_text(text[len(written) :])
                    written = text
        if on_text is not None and len(rest := self.processor.decode(rows[0])[len(written) :]):
            on_text(rest)
        answers = [
            Answer(
                question=one,
                text=self.processor.decode(row),
                evidence=evidence,
                finish_reason="length" if len(row) == max_new_tokens else "stop",
                num_prompt_tokens=int(mask.sum()),
                num_new_tokens=len(row),
                first_token_seconds=first_token_seconds or time.perf_counter() - started,
                total_seconds=time.perf_counter() - started,
            )
            for one, row, evidence, mask in zip(questions, rows, prompt.evidence, prompt.attention_mask)
        ]
        return answers[0] if isinstance(question, str) else answers

    @_one_at_a_time
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
        """Multiple choice: which option's letter the model finds most probable as its answer.

        Args:
            memory: from `watch`, or loaded; None as for `ask`.
            question: without the options.
            options: 2 to 26 texts.
            subtitles, subtitle_tokens: as for `ask`.

        Raises:
            InputError: fewer than 2 or more than 26 options, an empty one, or what `ask` refuses.
            MemoryFileError: as `ask`.
        """
        (question,) = _checked_questions(question, most=1)
        if not 2 <= len(options) <= len(LETTERS):
            raise InputError(f"a choice needs 2 to {len(LETTERS)} options, got {len(options)}")
        options = [whole_text(option) for option in options]
        if not all(option.strip() for option in options):
            raise InputError("an option is empty; give each a text")
        text = choice_prompt(question, options)
        prompt = self._prompt(memory, [question], [text], subtitles, subtitle_tokens, ())
        logits_V = self._decoder.prefill(prompt.embeds, prompt.attention_mask, 0)[0]
        letters = LETTERS[: len(options)]
        letter_ids = [self.processor.tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in letters]
        probabilities = logits_V[letter_ids].float().softmax(-1).tolist()
        best = int(np.argmax(probabilities))
        return Choice(question, options[best], letters[best], probabilities, prompt.evidence[0])

    def chat(self, memory: Memory) -> Chat:
        """A conversation about a memory, in which earlier answers are context."""
        return Chat(self, memory)

    @_one_at_a_time
    def release(self) -> None:
        """Drop keys and values of the last memory asked and the decoder's buffers, to make room on the device.

        Asking makes them anew.
        """
        self._ready = None
        self._decoder.release()

    def _ready_memory(self, memory: Memory) -> ReadyMemory:
        """The memory with keys and values; those of the last memory asked are kept."""
        memory.check_file_unchanged()
        ready = self._ready
        if ready is None or ready.memory is not memory or not ready.is_current:
            memory.check_fits(self.encoder)
            self._ready = None  # free the old one first
            ready = self._ready = make_ready(memory, self.model.model, self.memory_share)
        return ready

    def _room_after(self, prompt: "Prompt") -> int:
        """Tokens that an answer may have at most."""
        config = self.model.config
        positions = getattr(config.text_config, "max_position_embeddings", None) or config.max_sequence_tokens
        limit = min(config.max_sequence_tokens, positions)
        num_tokens = prompt.embeds.shape[1]
        if num_tokens >= limit:
            raise InputError(f"the prompt has {num_tokens} tokens, the model takes {limit} with the answer; shorten it")
        return int(limit - num_tokens)

    @torch.inference_mode()
    def _prompt(
        self,
        memory: Memory | None,
        questions: Sequence[str],
        texts: Sequence[str],
        subtitles: Sequence[Cue],
        subtitle_tokens: int,
        history: History,
    ) -> "Prompt":
        """Embedded prompts, augmented from the memory, and their evidence.

        Args:
            memory, subtitles, subtitle_tokens, history: as for `ask`.
            questions: without options and subtitles.
            texts: what the model is asked instead of each question.
        """
        check_fork(self._process, self.model.device)
        if memory is None:
            texts = [self._with_subtitles(text, (), subtitles, subtitle_tokens) for text in texts]
            return self._embed_text(texts, history)
        if not len(memory):
            raise InputError(f"the memory of {memory.source.file_name} holds no frames yet; watch something first")
        ready = self._ready_memory(memory)
        prompt = self._embed(ready, questions, texts, history)
        longer = [
            self._with_subtitles(text, evidence, subtitles, subtitle_tokens)
            for text, evidence in zip(texts, prompt.evidence)
        ]
        if longer == list(texts):
            return prompt
        # The evidence stays that of the question alone.
        again = self._embed(ready, questions, longer, history, with_evidence=False)
        return dataclasses.replace(again, evidence=prompt.evidence)

    def _with_subtitles(self, text: str, evidence: Sequence[Span], cues: Sequence[Cue], max_tokens: int) -> str:
        """What is asked, below the subtitles around its evidence; the text itself if there are none."""
        spans = [(span.start_seconds, span.end_seconds) for span in evidence]
        said = whole_text(subtitles_prompt(cues, spans, max_tokens, self._count_tokens))
        return f"Subtitles of the video:\n{said}\n{text}" if said else text

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        # Not verbose: subtitles longer than the model's context are no fault, they are cut.
        texts = [whole_text(text) for text in texts]
        ids = self.processor.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
        return [len(tokens) for tokens in ids]

    def _embed(
        self,
        ready: ReadyMemory,
        questions: Sequence[str],
        texts: Sequence[str],
        history: History,
        with_evidence: bool = True,
    ) -> "Prompt":
        memory, device, model = ready.memory, self.model.device, self.model.model
        samples, kept = [], []
        for question, text in zip(questions, texts):
            layout, kept_tokens = ready.layout, ready.kept_tokens
            if model.config.forgetting.temporal == "question":
                ids = self.processor.tokenizer(question, add_special_tokens=False, return_tensors="pt").input_ids
                mean = model.get_input_embeddings()(ids.to(device)).float().mean((0, 1))
                layout, kept_tokens = keep_for_question(ready, model, mean.cpu().numpy())
            video = Video(memory.duration_seconds, layout=layout, num_frames=memory.num_frames)
            messages = _messages(text, history)
            first = [{"type": "video", "video": video}, {"type": "text", "text": messages[0]["content"]}]
            messages[0] = {"role": "user", "content": first}
            samples.append(self.processor.encode(messages, add_generation_prompt=True))
            kept.append(kept_tokens)
        inputs = self.processor.collate(samples, for_generation=True)
        visuals = inputs["visuals"].to(device)
        kept_queries = visuals.visual_query_index.split([len(tokens) for tokens in kept])
        masses = [AttentionMass(queries, len(ready.layout.memory_index)) for queries in kept_queries]

        def observe(query_QHE: Tensor, keys_values: Any) -> None:
            for mass in masses:
                mass.observe(query_QHE, keys_values)

        embeds = model.embed(
            inputs["input_ids"].to(device),
            visuals,
            memory=ProjectedMemory(ready.keys_values, torch.cat(kept)),
            observe=observe if with_evidence else None,
        )
        mask = inputs["attention_mask"].to(device)
        if not with_evidence:
            return Prompt(embeds, mask, [])
        starts = shown_from_seconds(memory.timestamps_seconds, memory.sample_seconds) + memory.player_offset_seconds
        end = float(memory.sample_seconds[0]) + memory.duration_seconds + memory.player_offset_seconds
        shares = [mass.per_frame(memory.num_frames, ready.frame_of_entry) for mass in masses]
        return Prompt(embeds, mask, [spans_of(share, starts, end) for share in shares])

    def _embed_text(self, texts: Sequence[str], history: History) -> "Prompt":
        samples = [self.processor.encode(_messages(one, history), add_generation_prompt=True) for one in texts]
        inputs = self.processor.collate(samples, for_generation=True).to(self.model.device)
        embeds = self.model.model.embed(inputs["input_ids"])
        return Prompt(embeds, inputs["attention_mask"], [[] for _ in texts])


def _checked_questions(question: str | Sequence[str], most: int | None = None) -> list[str]:
    """One or several questions as a list.

    Raises:
        InputError: there is none, one is empty or no text, or there are more than `most`.
    """
    questions = [question] if isinstance(question, str) else question
    if not isinstance(questions, Sequence) or not all(isinstance(one, str) for one in questions):
        raise InputError(f"a question must be text, got {question!r:.80}")
    if not questions or not all(one.strip() for one in questions):
        raise InputError("the question is empty; ask something")
    if most is not None and len(questions) > most:
        raise InputError(f"only {most} question can be asked here, got {len(questions)}")
    return [whole_text(one) for one in questions]


def _messages(text: str, history: History) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for earlier, answer in history:
        messages += [
            {"role": "user", "content": whole_text(earlier)},
            {"role": "assistant", "content": whole_text(answer)},
        ]
    return [*messages, {"role": "user", "content": text}]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Prompts of a call, ready to be decoded: embeddings [B, L, D], mask [B, L], evidence of each."""

    embeds: Tensor
    attention_mask: Tensor
    evidence: list[list[Span]]
