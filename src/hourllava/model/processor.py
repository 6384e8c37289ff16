"""Conversations with videos and images to the model's inputs.

`encode` turns one conversation into a `Sample`; `collate` puts samples together as a padded batch or as one packed row.
Calling the processor does both. A video is given as frames, as pooled features, or just as a number of frames whose
memory the caller already has; the processor neither reads files nor runs the vision tower.

    processor = HourLlavaProcessor.from_pretrained(folder)
    messages = [{"role": "user", "content": [{"type": "video", "video": Video(60.0, frames=frames)},
                                             {"type": "text", "text": "What happens first?"}]}]
    inputs = processor([messages], add_generation_prompt=True)
    model.generate(**inputs)
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, BatchFeature
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hourllava.errors import ConfigError, InputError
from hourllava.model.attention import Segments
from hourllava.model.batch import VisualBatch, VisualSample, batch_visuals
from hourllava.model.checkpoint import find_checkpoint, load_config
from hourllava.model.checkpoint_files import load_tokenizer
from hourllava.model.config import HourLlavaConfig
from hourllava.model.head import IGNORED_LABEL
from hourllava.model.layout import VisualLayout, image_layout, tiled_image_layout, video_entries_at, video_layout
from hourllava.model.prompt import (
    END,
    LabelPolicy,
    Role,
    Turn,
    VisualMark,
    special_token_id,
    tokenize_turns,
    turns_from_record,
    user_turn,
    video_sentence,
)
from hourllava.model.vision import frame_pixels, square_image_pixels, tiled_image_pixels


@dataclasses.dataclass(frozen=True)
class Video:
    """A video of a conversation: one of frames, features, or a layout made for a memory that exists already.

    Attributes:
        duration_seconds: told to the model in the prompt.
        frames: uint8 RGB [T, H, W, 3].
        features: pooled patch features [T, grid * grid, C].
        layout: what the memory keeps; `num_frames` goes with it.
        num_frames: T.
    """

    duration_seconds: float
    frames: Tensor | np.ndarray | None = None
    features: Tensor | None = None
    layout: VisualLayout | None = None
    num_frames: int = 0

    def __post_init__(self) -> None:
        given = [part is not None for part in (self.frames, self.features, self.layout)]
        if sum(given) != 1:
            raise InputError("give a video as frames, as features, or as a layout: one of the three")
        if self.layout is None:
            source = self.frames if self.frames is not None else self.features
            assert source is not None
            object.__setattr__(self, "num_frames", len(source))
        if self.num_frames < 1:
            raise InputError("a video needs at least one frame")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One encoded conversation.

    Attributes:
        input_ids: [L], a visual token id for every kept token.
        labels: [L], -100 where nothing is supervised.
        is_prompt_text: [L] text that MemAug may read.
        layout: of its visuals; None for text only.
        pixels: uint8 [N, 3, H, W] views or frames, if they are still to be encoded.
        features: [T, tokens, C] pooled features, if the video came as features.
        evidence: memory entries that show what it is about, if that is known and less than half of all.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    is_prompt_text: np.ndarray
    layout: VisualLayout | None = None
    pixels: Tensor | None = None
    features: Tensor | None = None
    evidence: np.ndarray | None = None


class ModelInputs(BatchFeature):
    """What the model's `forward` and `generate` take, as a dictionary."""

    def to(self, device: torch.device | str | int) -> Self:
        """Move everything, layouts and features too, to a device; returns itself.

        What lies in pinned memory goes to a GPU while the CPU goes on.
        """
        non_blocking = torch.device(device).type == "cuda"  # to a CPU, results would be used before they are there
        return self._change(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Move everything to pinned memory; returns itself."""
        return self._change(lambda part: part.pin_memory())

    def _change(self, change: Callable[[Any], Any]) -> Self:
        for key in list(self):
            self[key] = _changed(self[key], change)
        return self


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """What holds tensors, changed: tensors, layouts, and dictionaries of them such as transformers' outputs."""
    if isinstance(value, dict):
        return type(value)({key: _changed(part, change) for key, part in value.items()})
    return change(value) if isinstance(value, (Tensor, VisualBatch)) else value


class HourLlavaProcessor:
    """Tokenizer, prompt, layouts and pixels of one model.

    Args:
        tokenizer: with the ChatML tokens.
        config: of the model.

    Attributes:
        pad_token_id: fills rows up; without a token of its own, the one that ends a text or a turn.

    Raises:
        ConfigError: the tokenizer has more tokens than the decoder, or neither a token for padding nor ChatML's.
    """

    def __init__(self, tokenizer: Any, config: HourLlavaConfig) -> None:
        rows = config.text_config.vocab_size
        if len(tokenizer) > rows:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens but the decoder's vocabulary only {rows} rows; they belong "
                "to different models"
            )
        self.tokenizer = tokenizer
        self.config = config
        own = [token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None]
        self.pad_token_id = int(own[0]) if own else special_token_id(tokenizer, END)

    @functools.cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the end of a turn, and of a text where the tokenizer has such a token."""
        own = (self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        return tuple({special_token_id(self.tokenizer, END), *(int(token) for token in own if token is not None)})

    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: Any) -> Self:
        """Tokenizer and configuration of a checkpoint of any layout, see `checkpoint.load_model`."""
        folder = find_checkpoint(name, weights=False)
        config = load_config(folder)
        return cls(load_tokenizer(folder, config.text_config), config)

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """Write the tokenizer and the configuration."""
        self.tokenizer.save_pretrained(folder)
        self.config.save_pretrained(folder)

    def __call__(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        *,
        add_generation_prompt: bool = False,
        label_policy: LabelPolicy = "answers",
        packed: bool = False,
        seed: int = 0,
    ) -> ModelInputs:
        """Encode and collate conversations; for generation, or to train on their answers.

        Args:
            conversations: chat messages each, see `encode`.
            add_generation_prompt: end with the opening of an answer; then rows are padded on the left, there are no
                labels, and MemAug reads all of the text.
            label_policy: which tokens are supervised otherwise.
            packed: one row without padding instead of a padded batch.
            seed: of random forgetting.

        Returns:
            what the model's `forward` and `generate` take.

        Raises:
            InputError: no conversation, or one that `encode` refuses.
        """
        if isinstance(conversations, (str, Mapping)) or any(isinstance(one, (str, Mapping)) for one in conversations):
            raise InputError("give a list of conversations, each of them a list of messages")
        samples = [
            self.encode(messages, add_generation_prompt=add_generation_prompt, label_policy=label_policy, seed=seed)
            for messages in conversations
        ]
        if packed:
            return self.collate_packed(samples)
        return self.collate(samples, for_generation=add_generation_prompt)

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        label_policy: LabelPolicy = "answers",
        seed: int = 0,
    ) -> Sample:
        """One conversation in chat form.

        Args:
            messages: `{"role": "user" | "assistant" | "system", "content": text or list}`; list items are
                `{"type": "text", "text": ...}`, `{"type": "image", "image": PIL image}` or
                `{"type": "video", "video": Video}`. Visuals of a turn come before its text.
            add_generation_prompt: end with the opening of an answer; all text is prompt.
            label_policy: which tokens are supervised otherwise.
            seed: of random forgetting.

        Raises:
            InputError: no message, an unknown role or content, several videos, a video beside images, or more tokens
                than the model takes.
        """
        if isinstance(messages, (str, Mapping)) or not messages:
            raise InputError(f"a conversation is a list of messages, at least one; got {messages!r:.80}")
        turns: list[Turn] = []
        images: list[Image.Image] = []
        videos: list[Video] = []
        for number, message in enumerate(messages):
            role, items = _role_and_items(message, number)
            texts, num_visuals = [], 0
            for item in items:
                kind = item["type"]
                if kind == "text":
                    texts.append(item["text"])
                    continue
                num_visuals += 1
                if kind == "image":
                    images.append(item["image"])
                else:
                    video: Video = item["video"]
                    videos.append(video)
                    texts.insert(0, video_sentence(video.duration_seconds, video.num_frames))
            text = "\n".join(texts)
            turns.append(user_turn(num_visuals, text) if role == "user" else Turn(role, (text,)))
        return self._encode_turns(
            turns,
            images,
            videos,
            add_generation_prompt=add_generation_prompt,
            label_policy=label_policy,
            seed=seed,
        )

    def encode_record(
        self,
        conversations: Sequence[Mapping[str, str]],
        *,
        images: Sequence[Image.Image] = (),
        video: Video | None = None,
        layout: VisualLayout | None = None,
        evidence_seconds: Sequence[tuple[float, float]] = (),
        label_policy: LabelPolicy = "answers",
        seed: int = 0,
    ) -> Sample:
        """One training record in LLaVA's format, whose `<image>` marks stand for the images or the video given.

        The sentence about a video's length is put after its mark, as the release does when it reads a record.

        Args:
            conversations: turns, `{"from": "human" | "gpt", "value": text}`.
            images, video: what the marks stand for.
            layout: instead of images: that of images which another sample of the batch brings along.
            evidence_seconds: (start, end) of what the video shows of it, if that is known.
            label_policy: which tokens are supervised.
            seed: of random forgetting.
        """
        turns = turns_from_record(conversations)
        if video is not None:
            sentence = video_sentence(video.duration_seconds, video.num_frames)
            turns = [_with_sentence(turn, sentence) for turn in turns]
        videos = [] if video is None else [video]
        sample = self._encode_turns(turns, images, videos, layout=layout, label_policy=label_policy, seed=seed)
        if video is None or not evidence_seconds:
            return sample
        assert sample.layout is not None
        evidence = video_entries_at(evidence_seconds, video.num_frames, video.duration_seconds, self.config)
        teaches = 0 < len(evidence) < len(sample.layout.memory_index) / 2
        return dataclasses.replace(sample, evidence=evidence) if teaches else sample

    def _encode_turns(
        self,
        turns: Sequence[Turn],
        images: Sequence[Image.Image],
        videos: Sequence[Video],
        *,
        label_policy: LabelPolicy,
        seed: int,
        layout: VisualLayout | None = None,
        add_generation_prompt: bool = False,
    ) -> Sample:
        num_images = len(images) if layout is None else len(layout.kept_per_visual)
        num_places = sum(isinstance(part, VisualMark) for turn in turns for part in turn.parts)
        if num_places != num_images + len(videos):
            raise InputError(
                f"the conversation has {num_places} places for visuals, but {num_images} images and {len(videos)} "
                "videos were given"
            )
        pixels = features = None
        if layout is None:
            layout, pixels, features = self._see(images, videos, seed)
        prompt = tokenize_turns(
            turns,
            self.tokenizer,
            self.config.visual_token_id,
            label_policy=label_policy,
            add_generation_prompt=add_generation_prompt,
        )
        input_ids, labels = np.array(prompt.input_ids, np.int64), np.array(prompt.labels, np.int64)
        repeats = np.ones(len(input_ids), np.int64)
        if layout is not None:
            repeats[input_ids == self.config.visual_token_id] = layout.kept_per_visual
        input_ids, labels = input_ids.repeat(repeats), labels.repeat(repeats)
        is_visual = input_ids == self.config.visual_token_id
        limit = self.config.max_sequence_tokens
        if len(input_ids) > limit and (add_generation_prompt or is_visual[limit:].any()):
            raise InputError(
                f"the conversation has {len(input_ids)} tokens, {is_visual.sum()} of them visual; the model takes "
                f"{limit}. Shorten the text, or ask in several conversations"
            )
        # A training record is cut, as in the release.
        input_ids, labels, is_visual = input_ids[:limit], labels[:limit], is_visual[:limit]
        if add_generation_prompt:
            labels = np.full_like(labels, IGNORED_LABEL)
        return Sample(input_ids, labels, (labels == IGNORED_LABEL) & ~is_visual, layout, pixels, features)

    def _see(
        self, images: Sequence[Image.Image], videos: Sequence[Video], seed: int
    ) -> tuple[VisualLayout | None, Tensor | None, Tensor | None]:
        """Layout, pixels and features of a conversation's visuals."""
        if len(videos) > 1 or (videos and images):
            raise InputError(
                f"a conversation holds one video, or images, or neither; got {len(videos)} videos, {len(images)} images"
            )
        if videos:
            video = videos[0]
            if video.layout is not None:
                return video.layout, None, None
            layout = video_layout(video.num_frames, self.config, seed=seed)
            if video.features is not None:
                return layout, None, video.features
            return layout, frame_pixels(torch.as_tensor(video.frames), self.config), None
        if not images:
            return None, None, None
        layout = self.layout_of_images([image.size for image in images], seed=seed)
        if self._tiles(len(images)):
            return layout, tiled_image_pixels(images[0], self.config), None
        return layout, square_image_pixels(images, self.config), None

    def layout_of_images(self, sizes_pixels: Sequence[tuple[int, int]], *, seed: int = 0) -> VisualLayout:
        """The layout of images of these sizes, (width, height): one is tiled, several have one view each."""
        if self._tiles(len(sizes_pixels)):
            return tiled_image_layout(*sizes_pixels[0], self.config, seed=seed)
        return image_layout(len(sizes_pixels), self.config, seed=seed)

    def _tiles(self, num_images: int) -> bool:
        """Whether an image is cut into tiles."""
        return num_images == 1 and self.config.max_image_tiles > 1

    def collate(self, samples: Sequence[Sample], *, for_generation: bool = False) -> ModelInputs:
        """A padded batch: on the left, without labels, for generation; on the right for training.

        Raises:
            InputError: there is no sample.
        """
        if not samples:
            raise InputError("there is no conversation; give at least one")
        length = max(len(sample.input_ids) for sample in samples)
        padding = [length - len(sample.input_ids) for sample in samples]

        def pad(rows: Sequence[np.ndarray], value: int) -> Tensor:
            widths = [(count, 0) if for_generation else (0, count) for count in padding]
            padded = [np.pad(row, width, constant_values=value) for row, width in zip(rows, widths)]
            return torch.from_numpy(np.stack(padded))

        starts = [row * length + (count if for_generation else 0) for row, count in enumerate(padding)]
        inputs = {
            "input_ids": pad([sample.input_ids for sample in samples], self.pad_token_id),
            "attention_mask": pad([np.ones_like(sample.input_ids) for sample in samples], 0),
            **self._visual_inputs(samples, starts),
        }
        if not for_generation:
            inputs["labels"] = pad([sample.labels for sample in samples], IGNORED_LABEL)
        return ModelInputs(inputs)

    def collate_packed(self, samples: Sequence[Sample]) -> ModelInputs:
        """One row of samples one after the other, without padding, for training.

        Raises:
            InputError: there is no sample.
        """
        if not samples:
            raise InputError("there is no conversation; give at least one")
        segments = Segments(tuple(len(sample.input_ids) for sample in samples))
        labels = np.concatenate([sample.labels for sample in samples])
        labels[list(segments.offsets[:-1])] = IGNORED_LABEL  # no sample predicts what the next one begins with
        return ModelInputs(
            {
                "input_ids": torch.from_numpy(np.concatenate([sample.input_ids for sample in samples]))[None],
                "labels": torch.from_numpy(labels)[None],
                "segments": segments,
                **self._visual_inputs(samples, segments.offsets),
            }
        )

    def _visual_inputs(self, samples: Sequence[Sample], starts: Sequence[int]) -> dict[str, Any]:
        """Layouts, pixels and features of a batch."""
        seen = [(sample, start) for sample, start in zip(samples, starts) if sample.layout is not None]
        visuals = batch_visuals(
            [
                VisualSample(
                    sample.layout,
                    start,
                    sample.input_ids == self.config.visual_token_id,
                    sample.is_prompt_text,
                    sample.evidence,
                )
                for sample, start in seen
                if sample.layout is not None
            ]
        )
        inputs: dict[str, Any] = {}
        if visuals is not None:
            inputs["visuals"] = visuals
        pixels: dict[str, list[Tensor]] = {"image": [], "video": []}
        features: list[Tensor] = []
        for sample, _ in seen:
            assert sample.layout is not None
            if sample.pixels is not None:
                pixels[sample.layout.modality].append(sample.pixels)
            if sample.features is not None:
                features.append(sample.features)
        if pixels["video"] and features:
            raise InputError("a batch holds videos as frames or videos as features, not both; encode the frames first")
        if pixels["image"]:
            inputs["pixel_values"] = torch.cat(pixels["image"])
        if pixels["video"]:
            inputs["pixel_values_videos"] = torch.cat(pixels["video"])
        if features:
            inputs["mm_encoder_outputs"] = {"video": BaseModelOutputWithPooling(pooler_output=torch.cat(features))}
        return inputs

    def decode(self, token_ids: Tensor | Sequence[int]) -> str:
        """Text of an answer's tokens, without special tokens."""
        text: str = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        return text.strip()


_CONTENT: dict[str, type] = {"text": str, "image": Image.Image, "video": Video}


def _role_and_items(message: Any, number: int) -> tuple[Role, Sequence[Mapping[str, Any]]]:
    """A chat message's role and the items of its content, each of a known type.

    Raises:
        InputError: the message has another form.
    """
    given: Mapping[str, Any] = message if isinstance(message, Mapping) else {}
    role: Any = given.get("role")
    content: Any = given.get("content")
    if role not in get_args(Role) or (role == "system" and number > 0):
        raise InputError(
            f"message {number} has the role {role!r:.80}; allowed are system (first only), user, assistant"
        )
    if isinstance(content, str):
        return role, [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise InputError(f"message {number} has the content {content!r:.80}; it must be a text, or a list of items")
    for item in content:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if not isinstance(kind, str) or kind not in _CONTENT:
            raise InputError(f"message content of type {kind!r:.80}; allowed are text, image and video")
        if not isinstance(item.get(kind), _CONTENT[kind]):
            wanted = _CONTENT[kind]
            raise InputError(
                f"message {number} gives its {kind} as {type(item.get(kind)).__name__}; it must be "
                f"{wanted.__module__}.{wanted.__name__}"
            )
        if kind != "text" and role != "user":
            raise InputError(f"message {number} is of the {role} and holds a {kind}; only the user shows something")
    return role, content


def _with_sentence(turn: Turn, sentence: str) -> Turn:
    """The turn with a sentence between its visual and its text."""
    if not any(isinstance(part, VisualMark) for part in turn.parts):
        return turn
    text = "".join(part for part in turn.parts if isinstance(part, str)).strip()
    return user_turn(1, f"{sentence}\n{text}" if text else sentence)


AutoProcessor.register(HourLlavaConfig, HourLlavaProcessor, exist_ok=True)
