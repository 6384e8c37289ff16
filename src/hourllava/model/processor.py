"""Conversations with videos and images to the model's inputs.

`encode` turns one conversation into a `Sample`; `collate` and `collate_packed` make a batch of samples. Calling the
processor does both. A video comes as frames, as pooled features, or as the layout of a memory that the caller has. The
processor neither reads files nor runs the vision tower.

    processor = HourLlavaProcessor.from_pretrained(folder)
    messages = [{"role": "user", "content": [{"type": "video", "video": Video(60.0, frames=frames)},
                                             {"type": "text", "text": "What happens first?"}]}]
    inputs = processor([messages], add_generation_prompt=True)
    model.generate(**inputs)
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor

from hourllava.errors import ConfigError, InputError
from hourllava.model.checkpoint import find_checkpoint, load_config
from hourllava.model.checkpoint_files import load_tokenizer
from hourllava.model.config import HourLlavaConfig
from hourllava.model.head import IGNORED_LABEL
from hourllava.model.inputs import ModelInputs, Sample, collate, collate_packed
from hourllava.model.layout import VisualLayout, image_layout, tiled_image_layout, video_entries_at, video_layout
from hourllava.model.messages import Video, turns_from_messages, with_sentence
from hourllava.model.prompt import (
    END,
    LabelPolicy,
    Turn,
    VisualMark,
    special_token_id,
    tokenize_turns,
    turns_from_record,
    video_sentence,
)
from hourllava.model.vision import frame_pixels, square_image_pixels, tiled_image_pixels


class HourLlavaProcessor:
    """Tokenizer, prompt, layouts and pixels of one model.

    Args:
        tokenizer: must have ChatML's tokens.
        config: of the model.

    Attributes:
        pad_token_id: pads rows; a tokenizer without a padding token uses the one that ends a text or a turn.

    Raises:
        ConfigError: the tokenizer has more tokens than the decoder, or neither a padding token nor ChatML's.
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
        """Tokens that end an answer: the end of a turn, and the end of a text if the tokenizer has one."""
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
        """Encode and collate conversations, for generation or for training on their answers.

        Args:
            conversations: lists of chat messages, see `encode`.
            add_generation_prompt: end with the opening of an answer. Rows are then padded on the left, there are no
                labels, and MemAug reads all text.
            label_policy: which tokens are supervised in training.
            packed: one row without padding instead of a padded batch.
            seed: of random forgetting.

        Returns:
            the arguments of the model's `forward` and `generate`.

        Raises:
            InputError: there is no conversation, or `encode` refuses one.
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
                `{"type": "video", "video": Video}`. Visuals of a turn precede its text.
            add_generation_prompt: end with the opening of an answer; all text is then prompt.
            label_policy: which tokens are supervised in training.
            seed: of random forgetting.

        Raises:
            InputError: no message, an unknown role or content, several videos, a video beside images, or more tokens
                than the model takes.
        """
        turns, images, videos = turns_from_messages(messages)
        return self._encode_turns(
            turns,
            images,
            videos,
            add_generation_prompt=add_generation_prompt,
            label_policy=label_policy,
            seed=seed,
        )

    def encode_around_video(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
        """A conversation about one video without the video's own tokens, which may be thousands.

        Args:
            messages: as for `encode`; they show one video and nothing else.

        Returns:
            token ids of the text before the video, and of the text behind it up to the opening of an answer.

        Raises:
            InputError: as `encode`, but for the number of tokens.
        """
        turns, _, _ = turns_from_messages(messages)
        visual_token_id = self.config.visual_token_id
        ids = tokenize_turns(turns, self.tokenizer, visual_token_id, add_generation_prompt=True).input_ids
        place = ids.index(visual_token_id)
        return ids[:place], ids[place + 1 :]

    def encode_record(
        self,
        conversations: Sequence[Mapping[str, str]],
        *,
        images: Sequence[Image.Image] = (),
        video: Video | None = None,
        layout: VisualLayout | None = None,
        evidence_seconds: Sequence[tuple[float, float]] = (),
        label_policy: LabelPolicy = "answers",
        num_context_turns: int = 0,
        seed: int = 0,
    ) -> Sample:
        """One training record in LLaVA's format; its `<image>` marks stand for the images or the video.

        The sentence about a video's length is added after its mark, as in the release.

        Args:
            conversations: turns, `{"from": "human" | "gpt", "value": text}`.
            images, video: the visuals of the marks.
            layout: instead of images, the layout of images that another sample of the batch holds.
            evidence_seconds: (start, end) of the moments that show the answer, if known.
            label_policy: which tokens are supervised.
            num_context_turns: the first turns, of which no token is supervised. MemAug reads them, also the answers.
            seed: of random forgetting.
        """
        turns = turns_from_record(conversations)
        if video is not None:
            sentence = video_sentence(video.duration_seconds, video.num_frames)
            turns = [with_sentence(turn, sentence) for turn in turns]
        videos = [] if video is None else [video]
        sample = self._encode_turns(
            turns,
            images,
            videos,
            layout=layout,
            label_policy=label_policy,
            num_context_turns=num_context_turns,
            seed=seed,
        )
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
        num_context_turns: int = 0,
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
            num_context_turns=num_context_turns,
            add_generation_prompt=add_generation_prompt,
        )
        input_ids, labels = np.array(prompt.input_ids, np.int64), np.array(prompt.labels, np.int64)
        repeats = np.ones(len(input_ids), np.int64)
        if layout is not None:
            repeats[input_ids == self.config.visual_token_id] = layout.tokens_per_visual
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
        """Layout, pixels and features of the visuals of a conversation."""
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
        """The layout of images of these sizes, (width, height): one image is tiled, several have one view each."""
        if self._tiles(len(sizes_pixels)):
            return tiled_image_layout(*sizes_pixels[0], self.config, seed=seed)
        return image_layout(len(sizes_pixels), self.config, seed=seed)

    def _tiles(self, num_images: int) -> bool:
        """Whether an image is cut into tiles."""
        return num_images == 1 and self.config.max_image_tiles > 1

    def collate(self, samples: Sequence[Sample], *, for_generation: bool = False) -> ModelInputs:
        """A padded batch, see `hourllava.model.inputs.collate`."""
        return collate(samples, self.pad_token_id, self.config.visual_token_id, for_generation=for_generation)

    def collate_packed(self, samples: Sequence[Sample]) -> ModelInputs:
        """One packed row, see `hourllava.model.inputs.collate_packed`."""
        return collate_packed(samples, self.config.visual_token_id)

    def decode(self, token_ids: Tensor | Sequence[int]) -> str:
        """The text of an answer's tokens, without special tokens."""
        text: str = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        return text.strip()


AutoProcessor.register(HourLlavaConfig, HourLlavaProcessor, exist_ok=True)
