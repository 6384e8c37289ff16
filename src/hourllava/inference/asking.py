"""Asking: questions become prompts that hold the video's kept tokens, and a prompt knows which moments it looked at.

    question -> chat text with the video -> embeddings, augmented from the memory -> Prompt: embeddings and evidence

Subtitles are chosen by the evidence of the bare question. The prompt is then embedded a second time, with them; the
evidence stays that of the first pass.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from hourllava.errors import InputError
from hourllava.inference.evidence import AttentionMass, Span, evidence_spans, shown_from_seconds
from hourllava.inference.ready import ReadyMemory, keep_for_question
from hourllava.inference.subtitles import Cue, subtitles_prompt
from hourllava.inference.text import whole_text
from hourllava.model.config import HourLlavaConfig
from hourllava.model.memaug import ProjectedMemory
from hourllava.model.messages import Video
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.visuals import Visuals

DEFAULT_SUBTITLE_TOKENS = 2048

OnText = Callable[[str], None]
History = Sequence[tuple[str, str]]


class AskOptions(TypedDict, total=False):
    """Options that `HourLlava.ask` and `Chat.ask` share; `HourLlava.ask` describes each.

    Attributes:
        subtitles: what is said in the video.
        subtitle_tokens: tokens that subtitles may take.
        max_new_tokens: tokens that an answer may have.
        temperature, top_p, seed: see `Sampler`.
        on_text: called with each new piece of the answer.
    """

    subtitles: Sequence[Cue]
    subtitle_tokens: int
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    on_text: OnText | None


@dataclasses.dataclass(frozen=True)
class Context:
    """What comes with a question; the attributes are as for `HourLlava.ask`."""

    history: History
    subtitles: Sequence[Cue]
    subtitle_tokens: int


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The prompts of one call, ready to be decoded.

    Attributes:
        embeds: [B, L, D], padded on the left.
        attention_mask: [B, L], 0 where padded.
        evidence: of each prompt.
    """

    embeds: Tensor
    attention_mask: Tensor
    evidence: list[list[Span]]


class PromptMaker:
    """Makes prompts for one model.

    Args:
        model: in evaluation mode, on its device.
        processor: of the same model.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration, processor: HourLlavaProcessor) -> None:
        self.model = model
        self.processor = processor

    @torch.inference_mode()
    def prompt(
        self, ready: ReadyMemory | None, questions: Sequence[str], texts: Sequence[str], context: Context
    ) -> Prompt:
        """Embedded prompts, augmented from the memory, and their evidence.

        Args:
            ready: the memory that is asked; None asks the language model alone.
            questions: without options and subtitles.
            texts: what the model reads in place of each question.
            context: of all questions.
        """
        if ready is None:
            return self._embed_text([self._with_subtitles(text, (), context) for text in texts], context.history)
        prompt = self._embed(ready, questions, texts, context.history)
        longer = [self._with_subtitles(text, evidence, context) for text, evidence in zip(texts, prompt.evidence)]
        if longer == list(texts):
            return prompt
        again = self._embed(ready, questions, longer, context.history, with_evidence=False)
        return dataclasses.replace(again, evidence=prompt.evidence)

    def _with_subtitles(self, text: str, evidence: Sequence[Span], context: Context) -> str:
        """The text below the subtitles around its evidence; the text alone if there are no subtitles."""
        spans = [(span.start_seconds, span.end_seconds) for span in evidence]
        said = whole_text(subtitles_prompt(context.subtitles, spans, context.subtitle_tokens, self._count_tokens))
        return f"Subtitles of the video:\n{said}\n{text}" if said else text

    def _count_tokens(self, texts: Sequence[str]) -> list[int]:
        # Not verbose: transformers would warn of subtitles longer than the model's context, but these are cut.
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
    ) -> Prompt:
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
        layouts = inputs["visuals"].to(device)
        kept_queries = layouts.visual_query_index.split([len(tokens) for tokens in kept])
        masses = [AttentionMass(queries, len(ready.layout.memory_index)) for queries in kept_queries]

        def observe(query_QHE: Tensor, keys_values: Any) -> None:
            for mass in masses:
                mass.observe(query_QHE, keys_values)

        embeds = model.embed(
            inputs["input_ids"].to(device),
            Visuals(layouts, memory=ProjectedMemory(ready.keys_values, torch.cat(kept))),
            observe if with_evidence else None,
        )
        mask = inputs["attention_mask"].to(device)
        if not with_evidence:
            return Prompt(embeds, mask, [])
        starts = shown_from_seconds(memory.timestamps_seconds, memory.sample_seconds) + memory.player_offset_seconds
        end = float(memory.sample_seconds[0]) + memory.duration_seconds + memory.player_offset_seconds
        shares = [mass.per_frame(memory.num_frames, ready.frame_of_entry) for mass in masses]
        return Prompt(embeds, mask, [evidence_spans(share, starts, end) for share in shares])

    def _embed_text(self, texts: Sequence[str], history: History) -> Prompt:
        samples = [self.processor.encode(_messages(one, history), add_generation_prompt=True) for one in texts]
        inputs = self.processor.collate(samples, for_generation=True).to(self.model.device)
        embeds = self.model.model.embed(inputs["input_ids"])
        return Prompt(embeds, inputs["attention_mask"], [[] for _ in texts])


def checked_questions(question: str | Sequence[str], max_questions: int | None = None) -> list[str]:
    """One or several questions as a list.

    Raises:
        InputError: there is no question, one is empty or no text, or there are more than `max_questions`.
    """
    questions = [question] if isinstance(question, str) else question
    if not isinstance(questions, Sequence) or not all(isinstance(one, str) for one in questions):
        raise InputError(f"a question must be text, got {question!r:.80}")
    if not questions or not all(one.strip() for one in questions):
        raise InputError("the question is empty; ask something")
    if max_questions is not None and len(questions) > max_questions:
        raise InputError(f"only {max_questions} question can be asked here, got {len(questions)}")
    return [whole_text(one) for one in questions]


def room_after(prompt: Prompt, config: HourLlavaConfig) -> int:
    """Tokens that the model's context leaves for an answer.

    Raises:
        InputError: it leaves none.
    """
    positions = getattr(config.text_config, "max_position_embeddings", None) or config.max_sequence_tokens
    limit = min(config.max_sequence_tokens, positions)
    num_tokens = prompt.embeds.shape[1]
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
