"""What a batch shows: the layouts of its visuals, with their pixels, their features, or a memory made of them.

A batch dictionary of the processor holds these as separate entries, under transformers' names. `Visuals.take_from`
makes one value of them, and everything in the model passes this value on.
"""

import dataclasses
from collections.abc import Mapping, MutableMapping
from typing import Any, Self

from torch import Tensor

from hourllava.model.batch import VisualBatch
from hourllava.model.layout import Modality
from hourllava.model.memaug import ProjectedMemory


@dataclasses.dataclass(frozen=True)
class Visuals:
    """The visuals of a batch: for each modality pixels or features, or else one memory of all of them.

    Attributes:
        layouts: of all samples.
        pixels: [N, 3, H, W] image views and video frames, bytes or normalised.
        features: [N, tokens, C] patch features of image views, pooled features of video frames.
        memory: of the whole batch, from `HourLlavaModel.remember`; pixels and features are then not looked at.
    """

    layouts: VisualBatch
    pixels: Mapping[Modality, Tensor] = dataclasses.field(default_factory=dict)
    features: Mapping[Modality, Tensor] = dataclasses.field(default_factory=dict)
    memory: ProjectedMemory | None = None

    @classmethod
    def take_from(cls, inputs: MutableMapping[str, Any]) -> Self | None:
        """The visuals of a batch dictionary, whose entries about visuals are removed.

        Args:
            inputs: may hold `visuals` (a `VisualBatch`), `pixel_values`, `pixel_values_videos`, `mm_encoder_outputs`
                (features as `get_image_features` and `get_video_features` give them, under "image" and "video") and
                `memory` (a `ProjectedMemory`).

        Returns:
            None if there is no `visuals` among them.
        """
        layouts, memory = inputs.pop("visuals", None), inputs.pop("memory", None)
        pixels: dict[Modality, Tensor | None] = {
            "image": inputs.pop("pixel_values", None),
            "video": inputs.pop("pixel_values_videos", None),
        }
        outputs = inputs.pop("mm_encoder_outputs", None) or {}
        if layouts is None:
            return None
        return cls(
            layouts,
            pixels={modality: values for modality, values in pixels.items() if values is not None},
            features={modality: output.pooler_output for modality, output in outputs.items() if output is not None},
            memory=memory,
        )
