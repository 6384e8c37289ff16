"""Encoded conversations, and the batches of them that the model takes: padded rows, or one packed row."""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hourllava.errors import InputError
from hourllava.model.attention import Segments
from hourllava.model.batch import VisualBatch, VisualSample, batch_visuals
from hourllava.model.head import IGNORED_LABEL
from hourllava.model.layout import Modality, VisualLayout


@dataclasses.dataclass(frozen=True)
class Sample:
    """One encoded conversation.

    Attributes:
        input_ids: [L], a visual token id for every kept token and recall token.
        labels: [L], -100 where nothing is supervised.
        is_prompt_text: [L] text that MemAug may read.
        layout: of its visuals; None for text only.
        pixels: uint8 [N, 3, H, W] views or frames that the vision tower still has to encode.
        features: [T, tokens, C] pooled features, if the video came as features.
        evidence: memory entries that show the answer; None if unknown, or if they are half of the memory or more.
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

        The copy from pinned memory to a GPU runs while the CPU goes on.
        """
        non_blocking = torch.device(device).type == "cuda"  # on a CPU, results would be used before they are there
        return self._change(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Move everything to pinned memory; returns itself."""
        return self._change(lambda part: part.pin_memory())

    def _change(self, change: Callable[[Any], Any]) -> Self:
        for key in list(self):
            self[key] = _changed(self[key], change)
        return self


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with its tensors changed; it may be a tensor, layouts, or a dictionary of these."""
    if isinstance(value, dict):
        return type(value)({key: _changed(part, change) for key, part in value.items()})
    return change(value) if isinstance(value, (Tensor, VisualBatch)) else value


def collate(
    samples: Sequence[Sample], pad_token_id: int, visual_token_id: int, *, for_generation: bool = False
) -> ModelInputs:
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
        "input_ids": pad([sample.input_ids for sample in samples], pad_token_id),
        "attention_mask": pad([np.ones_like(sample.input_ids) for sample in samples], 0),
        **_visual_inputs(samples, starts, visual_token_id),
    }
    if not for_generation:
        inputs["labels"] = pad([sample.labels for sample in samples], IGNORED_LABEL)
    return ModelInputs(inputs)


def collate_packed(samples: Sequence[Sample], visual_token_id: int) -> ModelInputs:
    """One row of samples one after the other, without padding, for training.

    A frame that equals the frame before it, such as that of a slide or a still, is given to the vision tower once.

    Raises:
        InputError: there is no sample.
    """
    if not samples:
        raise InputError("there is no conversation; give at least one")
    segments = Segments(tuple(len(sample.input_ids) for sample in samples))
    labels = np.concatenate([sample.labels for sample in samples])
    labels[list(segments.offsets[:-1])] = IGNORED_LABEL  # no sample predicts the first token of the next one
    return ModelInputs(
        {
            "input_ids": torch.from_numpy(np.concatenate([sample.input_ids for sample in samples]))[None],
            "labels": torch.from_numpy(labels)[None],
            "segments": segments,
            **_visual_inputs(samples, segments.offsets, visual_token_id, with_repeats=False),
        }
    )


def _visual_inputs(
    samples: Sequence[Sample], starts: Sequence[int], visual_token_id: int, *, with_repeats: bool = True
) -> dict[str, Any]:
    """Layouts, pixels and features of a batch, under the names that `Visuals.take_from` reads."""
    given: tuple[VisualLayout, VisualLayout] | None = None  # the last layout that came with pixels, before and after
    visuals: list[VisualSample] = []
    pixels: dict[Modality, list[Tensor]] = {"image": [], "video": []}
    features: list[Tensor] = []
    for sample, start in zip(samples, starts):
        if sample.layout is None:
            continue
        layout = sample.layout
        if sample.pixels is not None:
            layout, views = (layout, [sample.pixels]) if with_repeats else _without_repeats(layout, sample.pixels)
            pixels[layout.modality] += views
            given = (sample.layout, layout)
        elif given is not None and layout is given[0]:  # the same object: its kept tokens are shared, too
            layout = given[1]
        elif given is not None and layout.memory_index is given[0].memory_index:
            layout = dataclasses.replace(
                layout, memory_index=given[1].memory_index, num_patch_tokens=given[1].num_patch_tokens
            )
        is_visual = sample.input_ids == visual_token_id
        visuals.append(VisualSample(layout, start, is_visual, sample.is_prompt_text, sample.evidence))
        if sample.features is not None:
            features.append(sample.features)
    if pixels["video"] and features:
        raise InputError("a batch holds videos as frames or videos as features, not both; encode the frames first")
    inputs: dict[str, Any] = {}
    if visuals:
        inputs["visuals"] = batch_visuals(visuals)
    if pixels["image"]:
        inputs["pixel_values"] = torch.cat(pixels["image"])
    if pixels["video"]:
        inputs["pixel_values_videos"] = torch.cat(pixels["video"])
    if features:
        inputs["mm_encoder_outputs"] = {"video": BaseModelOutputWithPooling(pooler_output=torch.cat(features))}
    return inputs


def _without_repeats(layout: VisualLayout, pixels: Tensor) -> tuple[VisualLayout, Sequence[Tensor]]:
    """A video without the frames that equal the frame before them; its memory has all frames, as before.

    Returns:
        the layout, and views of the frames: [N, 3, H, W] each, together the frames that are left.
    """
    if layout.modality != "video" or layout.num_frames != len(pixels):  # a wrong number gets its error from the model
        return layout, [pixels]
    frames = pixels.permute(0, 2, 3, 1).flatten(1).numpy()  # copies nothing: this is how frames lie in memory
    words = frames.view(np.uint64) if frames.shape[1] % 8 == 0 else frames  # eight bytes are compared at once
    is_new = np.array([True, *((one != other).any() for one, other in pairwise(words))])
    if is_new.all():
        return layout, [pixels]
    return layout.over_frames(np.cumsum(is_new) - 1), [pixels[k : k + 1] for k in np.flatnonzero(is_new)]
