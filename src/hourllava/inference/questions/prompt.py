"""Asking: a question becomes a prompt that holds the video's kept tokens and knows which moments it looked at.

    question -> chat text with the video -> embeddings, augmented from the memory -> Prompt

With a model of recall tokens, the embeddings are only those behind the prefix that is kept with the memory.

A prompt keeps a sample of the queries with which it looked into the memory. So its evidence can be measured later, when
the first token is out. Subtitles do not change the evidence: it stays that of the bare question. If they all fit, the
bare question is embedded only when its evidence is asked for. Otherwise its evidence is measured first and chooses
subtitles, and the prompt is embedded a second time, with them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.errors import InputError
from hourllava.inference.memories.ready import ReadyMemory, keep_for_question
from hourllava.inference.memories.snapshot import MemorySnapshot
from hourllava.inference.questions.evidence import (
    LaunchedEvidence,
    Span,
    WatchedQueries,
    evidence_spans,
    share_of_frames,
    shares_of_runs,
)
from hourllava.inference.questions.options import DEFAULT_SUBTITLE_TOKENS, History
from hourllava.inference.questions.subtitles import Cue, SubtitleLines
from hourllava.inference.questions.text import whole_text
from hourllava.model.config import HourLlavaConfig
from hourllava.model.devices import HostCopy
from hourllava.model.inputs import ModelInputs, Sample
from hourllava.model.kept_prefix import (
    KeptPrefix,
    can_keep_prefix,
    embed_behind,
    make_kept_prefix,
    recall_queries,
)
from hourllava.model.layout import VisualLayout
from hourllava.model.memaug import ProjectedMemory, QueryObserver
from hourllava.model.messages import Video
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.trunk import HourLlavaModel
from hourllava.model.visuals import Visuals

# Sets of subtitles whose tokens stay counted. A day of speech takes 5 MB.
MAX_SUBTITLES = 8


@dataclasses.dataclass(frozen=True)
class Context:
    """What comes with a question; the attributes are as for `HourLlava.ask`."""

    history: History = ()
    subtitles: Sequence[Cue] = ()
    subtitle_tokens: int = DEFAULT_SUBTITLE_TOKENS


Measure = Callable[[], list[Span] | LaunchedEvidence]
"""Begins to measure evidence on the device."""


class Prompt:
    """The prompt of one question, ready to be decoded.

    Args:
        embeds: [L, D], augmented from the memory; or a question behind a kept prefix, which is embedded when it is
            needed, with others if there are any.
        measure: begins to measure the evidence.
        num_video_tokens, num_cached_tokens: see below.

    Attributes:
        num_own_tokens: L.
        num_tokens: L and those of the prefix.
        num_video_tokens: those of them that stand for the video, kept tokens and recall tokens.
        num_cached_tokens: those of them that earlier questions had left computed.
        prefix: before these tokens, kept with the memory.
    """

    def __init__(
        self,
        embeds: "Tensor | QuestionBehind",
        measure: Measure = list,
        *,
        num_video_tokens: int = 0,
        num_cached_tokens: int = 0,
    ) -> None:
        self.prefix = embeds.prefix if isinstance(embeds, QuestionBehind) else None
        self.num_own_tokens = len(embeds)
        self.num_tokens = len(embeds) + (self.prefix.num_tokens if self.prefix else 0)
        self.num_video_tokens, self.num_cached_tokens = num_video_tokens, num_cached_tokens
        self._embeds: Tensor | QuestionBehind | None = embeds
        self._measure: Measure | None = measure
        self._evidence: list[Span] | LaunchedEvidence = []

    def with_evidence(self, measure: Measure) -> "Prompt":
        """The same prompt with other evidence; this one is used up."""
        embeds, self._embeds = self._embeds, None
        assert embeds is not None, "the embeddings are taken already"
        counts = {"num_video_tokens": self.num_video_tokens, "num_cached_tokens": self.num_cached_tokens}
        return Prompt(embeds, measure, **counts)

    def embed(self) -> None:
        """Embed the question, unless that is done."""
        embed_together([self])

    def take_embeds(self) -> Tensor:
        """[L, D] the embeddings, which are then forgotten: an hour's take 37 MB with the 3B model. Once only."""
        self.embed()
        embeds_LD, self._embeds = self._embeds, None
        assert isinstance(embeds_LD, Tensor), "the embeddings are taken already"
        return embeds_LD

    def launch_evidence(self) -> list[Span] | LaunchedEvidence:
        """Begin to measure the evidence on the device. Until then, the prompt keeps the memory's keys alive."""
        if self._measure is not None:
            self.embed()
            self._evidence, self._measure = self._measure(), None
        return self._evidence

    @property
    def has_evidence(self) -> bool:
        """Whether `evidence` does not wait for the device."""
        launched = self._evidence
        return self._measure is None and (not isinstance(launched, LaunchedEvidence) or launched.is_here)

    def evidence(self) -> list[Span]:
        """The moments that the question looked at, strongest first; none without a memory."""
        launched = self.launch_evidence()
        if isinstance(launched, LaunchedEvidence):
            self._evidence = launched = launched.spans()
        return launched


@dataclasses.dataclass(frozen=True)
class QuestionBehind:
    """A question behind the kept prefix of a memory, not embedded yet.

    Attributes:
        model: that is asked.
        memory: that is asked.
        prefix: of the memory.
        text_ids: of the text behind the kept tokens.
        observe: sees MemAug's queries of the question.
    """

    model: HourLlavaModel
    memory: ProjectedMemory
    prefix: KeptPrefix
    text_ids: Sequence[int]
    observe: QueryObserver | None

    def __len__(self) -> int:
        """Tokens behind the prefix: recall tokens and text."""
        return self.model.config.memaug.num_recall_tokens + len(self.text_ids)


@torch.inference_mode()
def embed_together(prompts: Sequence[Prompt]) -> None:
    """Embed prompts that are not embedded yet; all of these are behind one prefix."""
    waiting = [(prompt, prompt._embeds) for prompt in prompts if isinstance(prompt._embeds, QuestionBehind)]
    if not waiting:
        return
    questions = [question for _, question in waiting]
    first = questions[0]
    embeds = embed_behind(
        first.model,
        first.prefix,
        first.memory,
        [question.text_ids for question in questions],
        [question.observe for question in questions],
    )
    for (prompt, _), embeds_LD in zip(waiting, embeds, strict=True):
        prompt._embeds = embeds_LD


class PromptMaker:
    """Makes prompts for one model.

    Args:
        model: in evaluation mode, on its device.
        processor: of the same model.

    Attributes:
        keeps_prefix: whether a prefix is kept with each memory, if the model can be asked behind one.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration, processor: HourLlavaProcessor) -> None:
        self.model = model
        self.processor = processor
        self.keeps_prefix = can_keep_prefix(model.config)
        self._lines: dict[tuple[tuple[Cue, ...], int], SubtitleLines] = {}

    def prompt(self, ready: ReadyMemory | None, question: str, text: str, context: Context) -> Prompt:
        """The embedded prompt of one question, augmented from the memory.

        Args:
            ready: the memory that is asked; None asks the language model alone.
            question: without options and subtitles.
            text: what the model reads in place of the question.
            context: of the question.
        """
        lines = self._lines_of(context)
        if ready is None:
            return Prompt(self._embed_text(_below(lines.near(()), text), context.history))
        bare = functools.partial(self._embed, ready, question, text, context.history)
        if lines.whole == "":  # no subtitles
            return bare()
        if lines.whole is not None:
            with_lines = self._embed(ready, question, _below(lines.whole, text), context.history, observes=False)
            return with_lines.with_evidence(lambda: bare().launch_evidence())
        prompt = bare()
        evidence = prompt.evidence()
        if not (near := lines.near([(span.start_seconds, span.end_seconds) for span in evidence])):
            return prompt
        with_lines = self._embed(ready, question, _below(near, text), context.history, observes=False)
        return with_lines.with_evidence(lambda: evidence)

    def _lines_of(self, context: Context) -> SubtitleLines:
        """The subtitles as lines; their tokens are counted once for all questions with them."""
        key = tuple(context.subtitles), context.subtitle_tokens
        lines = self._lines.pop(key, None)
        if lines is None:
            lines = SubtitleLines(context.subtitles, context.subtitle_tokens, self._count_tokens)
        self._lines[key] = lines  # the last one again
        if len(self._lines) > MAX_SUBTITLES:
            del self._lines[next(iter(self._lines))]
        return lines

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        # Not verbose: transformers would warn of subtitles longer than the model's context, but these are cut.
        texts = [whole_text(text) for text in texts]
        ids = self.processor.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
        return [len(tokens) for tokens in ids]

    @torch.inference_mode()
    def _embed(
        self, ready: ReadyMemory, question: str, text: str, history: History, *, observes: bool = True
    ) -> Prompt:
        """The prompt; without `observes`, it has no evidence."""
        model = self.model.model
        layout, kept_tokens = ready.layout, ready.kept_tokens
        if model.config.forgetting.temporal == "question":
            layout, kept_tokens = keep_for_question(ready, model, self._descriptor(question))
        messages = _messages_about(ready.memory, layout, text, history)
        if self.keeps_prefix:
            return self._behind_prefix(ready, messages, observes)
        sample = self.processor.encode(messages, add_generation_prompt=True)
        room_after(len(sample.input_ids), self.model.config)  # before the work
        inputs = self._on_device(sample)
        layouts = inputs["visuals"]
        queries = WatchedQueries(layouts.watching_query_index)
        embeds_1LD = model.embed(
            inputs["input_ids"],
            Visuals(layouts, memory=ProjectedMemory(ready.keys_values, kept_tokens)),
            queries.observe if observes else None,
        )
        measure = _MeasureWatched(ready, queries) if observes else list
        return Prompt(embeds_1LD[0], measure, num_video_tokens=layout.num_visual_tokens)

    def _behind_prefix(self, ready: ReadyMemory, messages: Sequence[Mapping[str, Any]], observes: bool) -> Prompt:
        """The prompt behind the prefix that is kept with the memory; the first question makes the prefix."""
        model, memory = self.model.model, ProjectedMemory(ready.keys_values, ready.kept_tokens)
        before, behind = self.processor.encode_around_video(messages)
        num_video = ready.layout.num_visual_tokens
        room_after(len(before) + num_video + len(behind), model.config)  # before the work
        prefix, num_cached = ready.slot.prefix, 0
        if prefix is None or prefix.text_ids != tuple(before):
            sample = self.processor.encode(messages, add_generation_prompt=True)
            prefix = ready.slot.prefix = make_kept_prefix(model, memory, sample)
        else:
            num_cached = prefix.num_tokens
        recall = recall_queries(prefix, model.config)
        queries = WatchedQueries(torch.arange(recall.start, recall.stop, device=ready.kept_tokens.device))
        question = QuestionBehind(model, memory, prefix, behind, queries.observe if observes else None)
        measure = _MeasureWatched(ready, queries) if observes else list
        return Prompt(question, measure, num_video_tokens=num_video, num_cached_tokens=num_cached)

    def _descriptor(self, question: str) -> npt.NDArray[np.float32]:
        """[D] mean embedding of the question, for forgetting that depends on it."""
        ids = self.processor.tokenizer(question, add_special_tokens=False, return_tensors="pt").input_ids
        embeddings = self.model.get_input_embeddings()(ids.to(self.model.device))
        mean: npt.NDArray[np.float32] = embeddings.float().mean((0, 1)).cpu().numpy()
        return mean

    @torch.inference_mode()
    def _embed_text(self, text: str, history: History) -> Tensor:
        sample = self.processor.encode(_messages(text, history), add_generation_prompt=True)
        room_after(len(sample.input_ids), self.model.config)
        return self.model.model.embed(self._on_device(sample)["input_ids"])[0]

    def _on_device(self, sample: Sample) -> ModelInputs:
        """One conversation for the model. A copy from unpinned memory would wait for all queued work of a GPU."""
        inputs, device = self.processor.collate([sample], for_generation=True), self.model.device
        return (inputs.pin_memory() if device.type == "cuda" else inputs).to(device)


@dataclasses.dataclass(frozen=True)
class _MeasureWatched:
    """Measures what the watched queries of a prompt looked at in a memory."""

    ready: ReadyMemory
    queries: WatchedQueries

    def __call__(self) -> LaunchedEvidence:
        return _launched(self.ready, [self.queries])[0]


def launch_together(prompts: Sequence[Prompt]) -> None:
    """Begin to measure the evidence of prompts; of those about one memory in one pass."""
    of_memory: dict[int, list[tuple[Prompt, _MeasureWatched]]] = {}
    for prompt in prompts:
        if isinstance(prompt._measure, _MeasureWatched):
            prompt.embed()
            of_memory.setdefault(id(prompt._measure.ready), []).append((prompt, prompt._measure))
        else:
            prompt.launch_evidence()
    for some in of_memory.values():
        launched = _launched(some[0][1].ready, [measure.queries for _, measure in some])
        for (prompt, _), evidence in zip(some, launched, strict=True):
            prompt._evidence, prompt._measure = evidence, None


@torch.inference_mode()
def _launched(ready: ReadyMemory, queries: Sequence[WatchedQueries]) -> list[LaunchedEvidence]:
    """The evidence of questions about one memory, as it is measured."""
    memory, runs, starts = ready.memory, ready.runs_of_frames, ready.shown_seconds

    def spans_of(share_R: npt.NDArray[np.float64]) -> list[Span]:
        end = float(memory.sample_seconds[0]) + memory.duration_seconds + memory.player_offset_seconds
        return evidence_spans(share_of_frames(share_R, runs, memory.num_frames), starts, end)

    shares_NR = HostCopy(shares_of_runs(queries, runs))
    return [LaunchedEvidence(shares_NR, number, spans_of) for number in range(len(queries))]


def _below(lines: str, text: str) -> str:
    """The text below subtitles, or alone if there are none."""
    return f"Subtitles of the video:\n{whole_text(lines)}\n{text}" if lines else text


def checked_question(question: str) -> str:
    """The question as valid text.

    Raises:
        InputError: it is empty, or no text.
    """
    if not isinstance(question, str):
        raise InputError(f"a question must be text, got {question!r:.80}; use ask_all for several")
    if not question.strip():
        raise InputError("the question is empty; ask something")
    return whole_text(question)


def room_after(num_tokens: int, config: HourLlavaConfig) -> int:
    """Tokens that the model's context leaves for an answer to a prompt of so many.

    Raises:
        InputError: it leaves none.
    """
    positions = getattr(config.text_config, "max_position_embeddings", None) or config.max_sequence_tokens
    limit = min(config.max_sequence_tokens, positions)
    if num_tokens >= limit:
        raise InputError(f"the prompt has {num_tokens} tokens, the model takes {limit} with the answer; shorten it")
    return int(limit - num_tokens)


def _messages(text: str, history: History) -> list[dict[str, Any]]:
    """The conversation as the processor takes it, ending with `text`."""
    messages: list[dict[str, Any]] = []
    for earlier, answer in history:
        messages += [
            {"role": "user", "content": whole_text(earlier)},
            {"role": "assistant", "content": whole_text(answer)},
        ]
    return [*messages, {"role": "user", "content": text}]


def _messages_about(memory: MemorySnapshot, layout: VisualLayout, text: str, history: History) -> list[dict[str, Any]]:
    """The same with the video before the first text."""
    first, *later = _messages(text, history)
    video = Video(memory.duration_seconds, layout=layout, num_frames=memory.num_frames)
    items = [{"type": "video", "video": video}, {"type": "text", "text": first["content"]}]
    return [{"role": "user", "content": items}, *later]
