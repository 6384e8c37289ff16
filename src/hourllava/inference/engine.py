"""Watch a video once, ask it anything.

    model = HourLlava.from_pretrained("nano")
    memory = model.watch("lecture.mp4")
    answer = model.ask(memory, "When is the first graph shown?")
    print(answer.text, answer.evidence)

The library, the command and the server all go this way. Greedy decoding and content-seeded forgetting make answers
repeatable: the same question on the same memory gives the same answer.
"""

import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hourllava.choices import LETTERS, choice_prompt
from hourllava.errors import ConfigError, InputError, MemoryFileError, VideoError
from hourllava.inference.answers import Answer, Choice
from hourllava.inference.cache import MemoryCache
from hourllava.inference.chat import Chat
from hourllava.inference.decoding import Decoder, Sampler, generate_tokens
from hourllava.inference.devices import check_fork, usable_device, usable_dtype
from hourllava.inference.encoder import EncoderIdentity, encoder_identity
from hourllava.inference.evidence import AttentionMass, Span, spans_of
from hourllava.inference.memory import Memory, Source
from hourllava.inference.recall import ReadyMemory, keep_for_question, make_ready
from hourllava.inference.subtitles import Cue, subtitles_prompt
from hourllava.model.checkpoint import load_model
from hourllava.model.memaug import ProjectedMemory
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import NANO, load_nano
from hourllava.model.processor import HourLlavaProcessor, Video
from hourllava.model.vision import frame_pixels
from hourllava.video import FrameReader, read_frames, shown_name, source_state
from hourllava.video.reader import check_sampling
from hourllava.video.source import SourceKind

DEFAULT_MAX_NEW_TOKENS = 512
DEFAULT_SUBTITLE_TOKENS = 2048

logger = logging.getLogger(__name__)

OnText = Callable[[str], None]
History = Sequence[tuple[str, str]]


class HourLlava:
    """A model with everything needed to use it.

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
        self._decoder = Decoder(model)
        self._ready: ReadyMemory | None = None
        self._process = os.getpid()

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
            dtype: of the weights; bfloat16 on a GPU, float32 on the CPU.

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
            start_seconds, end_seconds: the part to watch; all of it by default.
            memory: of an earlier, shorter state of the same video: only what is new is watched and appended.
            cache: look there first, and leave the memory there. A pipe, a playlist, and an address whose server gives
                neither date nor tag have no identity and are not kept.
            allow_network: whether a URL may be opened.
            allow_playlists: whether a playlist may be opened, a file that names other files or addresses.
            progress: show a progress bar on stderr.

        Raises:
            VideoError: the video cannot be read, holds nothing in that part, or changed while it was read.
            MemoryFileError: `memory` is of another encoder or frame rate.
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
            start_seconds = float(memory.sample_seconds[-1]) + 0.5 / fps
        elif cache is not None and state.digest is not None:
            key = cache.key(state.digest, fps, self.encoder, start_seconds, end_seconds)
            cached = cache.get(key)
            if cached is not None:
                if state.source.kind is not SourceKind.URL:
                    state.is_unchanged()  # raises: it would be the memory of another file than is there now
                return cached
        elif cache is not None:
            logger.warning("the memory is not kept: nothing tells which content %s holds", state.source.location)
        source = Source(shown_name(video), state.digest)
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
            memory.source = Source(source.name, None)
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
        """Watch a live source or a long file, giving the growing memory after every batch: it can be asked at any time.

        Args:
            video: as for `watch`.
            fps: frames a second.
            allow_network, allow_playlists: as for `watch`.
            progress: show a progress bar on stderr.

        Yields:
            the same memory, a little longer each time.
        """
        source = Source(shown_name(video), None)
        may_open = {"allow_network": allow_network, "allow_playlists": allow_playlists}
        yield from self._read(video, fps, 0.0, None, None, source, may_open, progress)

    def remember_frames(
        self, frames: Tensor | np.ndarray, timestamps_seconds: Sequence[float], *, duration_seconds: float | None = None
    ) -> Memory:
        """A memory of frames the caller has: uint8 RGB [T, H, W, 3] and when each is shown, in seconds."""
        times = np.asarray(timestamps_seconds, np.float64)
        if len(times) != len(frames) or not len(times):
            raise InputError(
                f"got {len(frames)} frames and {len(times)} times; give one time for each frame, at least one"
            )
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        return Memory(
            features=self._encode(torch.as_tensor(frames)),
            timestamps_seconds=times,
            sample_seconds=times,
            fps=1.0 / step if step > 0 else 1.0,
            duration_seconds=float(times[-1] + step) if duration_seconds is None else duration_seconds,
            source=Source("frames", None),
            encoder=self.encoder,
        )

    def _read(
        self,
        video: str | Path,
        fps: float,
        start_seconds: float,
        end_seconds: float | None,
        memory: Memory | None,
        source: Source,
        may_open: dict[str, bool],
        progress: bool,
    ) -> Iterator[Memory]:
        """Frames in batches, encoded and appended to `memory` (made with the first batch), which is given each time."""
        size = self.model.config.vision_config.image_size
        reader = read_frames(
            video,
            fps=fps,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            size_pixels=(size, size),
            **may_open,
        )
        with reader, self._progress_bar(reader, fps, start_seconds, end_seconds, progress) as bar:
            for batch in reader:
                features = self._encode(torch.from_numpy(batch.frames))
                first_seconds = float((batch if memory is None else memory).sample_seconds[0])
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
                    )
                else:
                    memory.append(features, batch.timestamps_seconds, batch.sample_seconds, duration_seconds=duration)
                bar.update(len(batch))
                yield memory
            if memory is not None:
                memory.gaps = (*memory.gaps, *((gap.start_seconds, gap.end_seconds, gap.reason) for gap in reader.gaps))

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
            subtitles: what is said in the video; those around the evidence go into the prompt.
            subtitle_tokens: most tokens of them.
            history: earlier questions and answers of the conversation.
            max_new_tokens: most tokens of an answer.
            temperature, top_p, seed: see `Sampler`; 0 always takes the likeliest token.
            on_text: is called with each new piece of the answer's text (one question only).

        Returns:
            an `Answer`, or a list of them if several questions were given.

        Raises:
            InputError: an empty question, or more text than the model takes.
            MemoryFileError: the memory was made by another encoder.
        """
        started = time.perf_counter()
        questions = [question] if isinstance(question, str) else list(question)
        if on_text is not None and len(questions) != 1:
            raise InputError(f"text can be streamed for one question at a time, got {len(questions)}")
        prompt = self._prompt(memory, questions, subtitles, subtitle_tokens, history)
        rows: list[list[int]] = [[] for _ in questions]
        written = ""
        first_token_seconds = 0.0
        tokens = generate_tokens(
            self._decoder,
            prompt.embeds,
            prompt.attention_mask,
            stop_ids=self.processor.stop_ids,
            max_new_tokens=max_new_tokens,
            sampler=Sampler(temperature, top_p, seed),
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
            InputError: fewer than 2 or more than 26 options, or an empty question.
        """
        if not 2 <= len(options) <= len(LETTERS):
            raise InputError(f"a choice needs 2 to {len(LETTERS)} options, got {len(options)}")
        prompt = self._prompt(memory, [choice_prompt(question, options)], subtitles, subtitle_tokens, ())
        logits_V = self._decoder.prefill(prompt.embeds, prompt.attention_mask, 0)[0]
        letters = LETTERS[: len(options)]
        letter_ids = [self.processor.tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in letters]
        probabilities = logits_V[letter_ids].float().softmax(-1).tolist()
        best = int(np.argmax(probabilities))
        return Choice(question, options[best], letters[best], probabilities, prompt.evidence[0])

    def chat(self, memory: Memory) -> Chat:
        """A conversation about a memory, in which earlier answers are context."""
        return Chat(self, memory)

    def forget(self) -> None:
        """Drop keys and values of the last memory asked, to make room on the device; asking makes them anew."""
        self._ready = None

    def _ready_memory(self, memory: Memory) -> ReadyMemory:
        """The memory with keys and values; those of the last memory asked are kept."""
        ready = self._ready
        if ready is None or ready.memory is not memory or not ready.is_current:
            memory.check_fits(self.encoder)
            self._ready = None  # free the old one first
            ready = self._ready = make_ready(memory, self.model.model, self.memory_share)
        return ready

    @torch.inference_mode()
    def _prompt(
        self,
        memory: Memory | None,
        questions: Sequence[str],
        subtitles: Sequence[Cue],
        subtitle_tokens: int,
        history: History,
    ) -> "Prompt":
        """Embedded prompts of the questions, augmented from the memory, and their evidence."""
        check_fork(self._process, self.model.device)
        for question in questions:
            if not question.strip():
                raise InputError("the question is empty; ask something")
        if not questions:
            raise InputError("there is no question; ask something")
        if memory is None:
            return self._embed_text(questions, history)
        ready = self._ready_memory(memory)
        prompt = self._embed(ready, questions, history)
        if subtitles:
            spans = [(span.start_seconds, span.end_seconds) for evidence in prompt.evidence for span in evidence]
            said = subtitles_prompt(subtitles, spans, subtitle_tokens, self._count_tokens)
            if said:
                questions = [f"Subtitles of the video:\n{said}\n{question}" for question in questions]
                # The evidence stays that of the question alone.
                prompt = dataclasses.replace(self._embed(ready, questions, history), evidence=prompt.evidence)
        return prompt

    def _count_tokens(self, text: str) -> int:
        return len(self.processor.tokenizer(text, add_special_tokens=False).input_ids)

    def _embed(self, ready: ReadyMemory, questions: Sequence[str], history: History) -> "Prompt":
        memory, device, model = ready.memory, self.model.device, self.model.model
        samples, kept = [], []
        for question in questions:
            layout, kept_tokens = ready.layout, ready.kept_tokens
            if model.config.forgetting.temporal == "question":
                ids = self.processor.tokenizer(question, add_special_tokens=False, return_tensors="pt").input_ids
                mean = model.get_input_embeddings()(ids.to(device)).float().mean((0, 1))
                layout, kept_tokens = keep_for_question(ready, model, mean.cpu().numpy())
            video = Video(memory.duration_seconds, layout=layout, num_frames=memory.num_frames)
            messages = _messages(question, history)
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
            observe=observe,
        )
        evidence = [
            spans_of(
                mass.per_frame(memory.num_frames, ready.frame_of_entry),
                memory.timestamps_seconds,
                float(memory.sample_seconds[-1]) + 1.0 / memory.fps,
            )
            for mass in masses
        ]
        return Prompt(embeds, inputs["attention_mask"].to(device), evidence)

    def _embed_text(self, questions: Sequence[str], history: History) -> "Prompt":
        samples = [self.processor.encode(_messages(one, history), add_generation_prompt=True) for one in questions]
        inputs = self.processor.collate(samples, for_generation=True).to(self.model.device)
        embeds = self.model.model.embed(inputs["input_ids"])
        return Prompt(embeds, inputs["attention_mask"], [[] for _ in questions])


def _messages(question: str, history: History) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for earlier, answer in history:
        messages += [{"role": "user", "content": earlier}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": question}]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Prompts of a call, ready to be decoded: embeddings [B, L, D], mask [B, L], evidence of each."""

    embeds: Tensor
    attention_mask: Tensor
    evidence: list[list[Span]]
