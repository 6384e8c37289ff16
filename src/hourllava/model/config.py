"""Configuration of an Hour-LLaVA model.

A decoder (`text_config`: any decoder-only causal language model of transformers) and a vision tower (`vision_config`:
any patch-token vision model) are named, not built in; the published pairs are the JSON files in `presets/`. What is
ours - the memory, forgetting, MemAug, image tiling - has typed fields with units, checked when the config is made.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal, Self, TypeVar, get_args

from transformers import AutoConfig, PreTrainedConfig

from hourllava.errors import ConfigError

SpatialForgetting = Literal["random", "uniform"]
TemporalForgetting = Literal["uniform", "random", "keyframe", "question"]


# Vocabularies are padded to a round size: Qwen2's tokenizers define no token for the last row.
LAST_VOCABULARY_ROW = -1

_Section = TypeVar("_Section")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_choice(name: str, value: str, choices: Any) -> None:
    allowed = get_args(choices)
    _require(value in allowed, f"{name} is {value!r}; choose one of {', '.join(allowed)}")


@dataclasses.dataclass(frozen=True)
class MemAugConfig:
    """The memory attention (paper section 3.3). Width and heads are the decoder's.

    `rotary_fraction` is the part of each head that is rotated by position (0 switches positions off, as in the paper's
    ablation). `rope_theta=None` takes the decoder's. `normalize_inputs` brings every token, of the memory and of the
    queries, to a root mean square of 1 before the first block (not in the paper): blocks do not normalise what comes
    in, and where projected tokens are hundreds of times as long as those of text, what is asked drowns in them.
    `rotate_values` rotates what is looked up, too (not in the paper): by how far it lies from who looks it up. Else
    position decides where a block looks, but what it brings back does not tell when that was.
    """

    num_blocks: int = 4
    mlp_ratio: int = 4
    rotary_fraction: float = 0.5
    rope_theta: float | None = None
    normalize_inputs: bool = False
    rotate_values: bool = False

    def __post_init__(self) -> None:
        _require(self.num_blocks >= 0, f"memaug.num_blocks is {self.num_blocks}; it must be 0 (no MemAug) or more")
        _require(self.mlp_ratio >= 1, f"memaug.mlp_ratio is {self.mlp_ratio}; it must be at least 1")
        _require(
            0.0 <= self.rotary_fraction <= 1.0,
            f"memaug.rotary_fraction is {self.rotary_fraction}; it must lie between 0 and 1",
        )


@dataclasses.dataclass(frozen=True)
class ForgettingConfig:
    """Which memory tokens stay in the decoder's sight (paper section 3.2; published: 1/4 in space, 1/4 in time).

    `uniform` in space keeps even rows and even columns; it is a quarter whatever `spatial_keep_ratio` says.
    """

    spatial: SpatialForgetting = "random"
    temporal: TemporalForgetting = "uniform"
    spatial_keep_ratio: float = 0.25
    temporal_keep_ratio: float = 0.25
    max_kept_frames: int = 512

    def __post_init__(self) -> None:
        _require_choice("forgetting.spatial", self.spatial, SpatialForgetting)
        _require_choice("forgetting.temporal", self.temporal, TemporalForgetting)
        for name in ("spatial_keep_ratio", "temporal_keep_ratio"):
            ratio = getattr(self, name)
            _require(0.0 < ratio <= 1.0, f"forgetting.{name} is {ratio}; it must lie above 0 and not above 1")
        _require(self.max_kept_frames >= 1, f"forgetting.max_kept_frames is {self.max_kept_frames}; at least 1")


class HourLlavaConfig(PreTrainedConfig):
    """Everything that defines an Hour-LLaVA model.

    Attributes:
        text_config: the decoder.
        vision_config: the vision tower, as published, with all its layers.
        memaug: the memory attention.
        forgetting: what is kept of the memory.
        vision_feature_layer: hidden state taken from the tower, counted from the end; later layers are not built.
        vision_feature_width: width of a patch feature given to the projector; the tower's if None.
        vision_tower_name: where the tower comes from; written into exports of the released layout.
        video_grid: side of the pooled token grid of a video frame (8: 64 tokens a frame).
        min_video_frames: shorter videos have their frames repeated up to this many.
        max_image_tiles: side of the largest tile grid of an image (6: up to 6 x 6 tiles); 1 means one view only.
        max_image_grid_tiles: a tile grid worth more tokens than this many tiles is shrunk to it (anyres_max_9: 9).
        image_mean, image_std: pixel normalisation per channel, after division by 255.
        visual_token_id: id that stands for one visual token in `input_ids`; never embedded.
        max_sequence_tokens: longest sequence given to the decoder, in tokens.
    """

    model_type = "hourllava"
    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig}  # noqa: RUF012  # transformers' protocol

    # Dictionaries, or nothing, become these classes in __post_init__.
    text_config: PreTrainedConfig = None
    vision_config: PreTrainedConfig = None
    memaug: MemAugConfig = None  # type: ignore[assignment]
    forgetting: ForgettingConfig = None  # type: ignore[assignment]
    vision_feature_layer: int = -2
    vision_feature_width: int = None  # type: ignore[assignment]  # filled in __post_init__
    vision_tower_name: str | None = None
    video_grid: int = 8
    min_video_frames: int = 128
    max_image_tiles: int = 6
    max_image_grid_tiles: int = 9
    image_mean: Sequence[float] = (0.5, 0.5, 0.5)
    image_std: Sequence[float] = (0.5, 0.5, 0.5)
    visual_token_id: int = LAST_VOCABULARY_ROW
    max_sequence_tokens: int = 32768
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn nested dictionaries into their classes and check every field of ours."""
        self.text_config = _sub_config("text_config", self.text_config)
        self.vision_config = _sub_config("vision_config", self.vision_config)
        self.memaug = _from_dict(MemAugConfig, "memaug", self.memaug)
        self.forgetting = _from_dict(ForgettingConfig, "forgetting", self.forgetting)
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)
        self.vision_feature_width = self.vision_feature_width or self.vision_config.hidden_size
        if self.visual_token_id == LAST_VOCABULARY_ROW:
            self.visual_token_id = self.text_config.vocab_size - 1
        self.image_mean, self.image_std = tuple(self.image_mean), tuple(self.image_std)
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        text, vision = self.text_config, self.vision_config
        num_layers = vision.num_hidden_layers
        _require(
            text.hidden_size % text.num_attention_heads == 0,
            f"text_config.hidden_size {text.hidden_size} is not a multiple of its {text.num_attention_heads} heads",
        )
        _require(
            -num_layers <= self.vision_feature_layer <= -1,
            f"vision_feature_layer is {self.vision_feature_layer}; the tower has {num_layers} layers, so it must lie "
            f"between {-num_layers} and -1",
        )
        _require(
            vision.image_size >= vision.patch_size,
            f"vision_config.image_size {vision.image_size} is smaller than its patch size {vision.patch_size}",
        )
        _require(
            1 <= self.video_grid <= self.patch_grid,
            f"video_grid is {self.video_grid}; it must lie between 1 and the tower's {self.patch_grid} patches a side",
        )
        for name in ("min_video_frames", "max_image_tiles", "max_image_grid_tiles", "max_sequence_tokens"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} is {value}; it must be at least 1")
        for name in ("image_mean", "image_std"):
            _require(len(getattr(self, name)) == 3, f"{name} needs three numbers, got {getattr(self, name)!r}")

    @property
    def patch_grid(self) -> int:
        """Patches along one side of an image in the vision tower (27 for SigLIP so400m-patch14-384)."""
        return int(self.vision_config.image_size // self.vision_config.patch_size)

    @property
    def video_frame_tokens(self) -> int:
        """Pooled tokens of one video frame, without its newline (64)."""
        return self.video_grid**2

    @property
    def num_vision_layers(self) -> int:
        """Layers of the vision tower that are built and run (26 of 27)."""
        return int(self.vision_config.num_hidden_layers) + 1 + self.vision_feature_layer

    @property
    def rope_theta(self) -> float:
        """Base of MemAug's rotary positions."""
        return float(self.memaug.rope_theta or text_rope_theta(self.text_config))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as written to `config.json`."""
        output: dict[str, Any] = super().to_dict()
        output["memaug"] = dataclasses.asdict(self.memaug)
        output["forgetting"] = dataclasses.asdict(self.forgetting)
        return output

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """The configuration shipped as `presets/<name>.json`: `hourllava-3b`, `hourllava-7b` or `hourllava-nano`.

        Args:
            name: of the preset.
            **overrides: fields to change; within a nested configuration, only those that are given.

        Raises:
            ConfigError: no such preset.
        """
        folder = resources.files("hourllava.model") / "presets"
        known = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
        _require(name in known, f"there is no preset {name!r}; choose one of {', '.join(known)}")
        return cls(**merge_settings(json.loads((folder / f"{name}.json").read_text()), overrides))


def merge_settings(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` changes: nested mappings key by key, anything else replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge_settings(merged[key], value) if both else value
    return merged


def text_rope_theta(text_config: PreTrainedConfig) -> float:
    """The decoder's rotary base; 10000 for decoders that name none."""
    parameters = getattr(text_config, "rope_parameters", None) or {}
    return float(parameters.get("rope_theta", 10000.0))


def _sub_config(name: str, value: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig:
    default_type = {"text_config": "qwen2", "vision_config": "siglip_vision_model"}[name]
    if isinstance(value, PreTrainedConfig):
        return value
    fields = dict(value or {})
    model_type = fields.pop("model_type", default_type)
    try:
        return AutoConfig.for_model(model_type, **fields)
    except ValueError as error:
        raise ConfigError(f"{name} names model_type {model_type!r}, which transformers does not know") from error


def _from_dict(kind: type[_Section], name: str, value: Any) -> _Section:
    if isinstance(value, kind):
        return value
    fields = dict(value or {})
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(fields) - known)
    _require(not unknown, f"{name} has no setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return kind(**fields)


AutoConfig.register("hourllava", HourLlavaConfig, exist_ok=True)
