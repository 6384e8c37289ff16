"""Configuration of an Hour-LLaVA model.

The decoder (`text_config`) and the vision tower (`vision_config`) may be of any family in `hourllava.model.backbones`.
The published pairs are the JSON files in `presets/`. Our own settings - memory, forgetting, MemAug, image tiling - are
typed fields with units, checked when the configuration is made.
"""

import dataclasses
import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from typing import Any, Literal, Self, TypeVar, get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hourllava.errors import ConfigError
from hourllava.model.backbones import (
    DECODERS,
    MAX_IMAGE_PIXELS,
    MAX_WIDTH,
    VISION_FAMILIES,
    check_decoder,
    check_vision_tower,
    require_family,
    text_rope_theta,
)
from hourllava.model.checks import describe_error, require, require_choice, require_flag, require_number, require_whole

Recall = Literal["kept", "question"]
SpatialForgetting = Literal["random", "uniform"]
TemporalForgetting = Literal["uniform", "random", "keyframe", "question"]


# Vocabularies are padded to a round size: Qwen2's tokenizers define no token for the last row.
LAST_VOCABULARY_ROW = -1

_Section = TypeVar("_Section")


@dataclasses.dataclass(frozen=True)
class MemAugConfig:
    """The memory attention (paper section 3.3). Width and heads are the decoder's.

    `rotary_fraction` is the part of each head that is rotated by position (0 switches positions off, as in the paper's
    ablation). `rope_theta=None` takes the decoder's.

    `normalize_inputs` (not in the paper) scales every token of memory and queries to a root mean square of 1 before the
    first block. Blocks do not normalise their inputs; where projected tokens are hundreds of times longer than text
    tokens, the question has no measurable effect.

    `rotate_values` (not in the paper) also rotates values, by their distance from the query. Without it, position
    decides where a block looks, but the values it reads do not tell their time.

    `recall` decides what the question sees. `kept`, the published way: kept tokens and the question look into the
    memory together, so the kept tokens differ with every question. `question` (not in the paper): kept tokens see each
    other and the memory only; `recall_tokens` learnt tokens behind them look into the memory together with the
    question, and carry to the decoder what they find. See `hourllava.model.queries`.
    """

    num_blocks: int = 4
    mlp_ratio: int = 4
    rotary_fraction: float = 0.5
    rope_theta: float | None = None
    normalize_inputs: bool = False
    rotate_values: bool = False
    recall: Recall = "kept"
    recall_tokens: int = 64

    def __post_init__(self) -> None:
        require_whole("memaug.num_blocks", self.num_blocks, 0, 512)  # 0: no MemAug
        require_whole("memaug.mlp_ratio", self.mlp_ratio, 1, 512)
        require_number("memaug.rotary_fraction", self.rotary_fraction)
        require(
            0.0 <= self.rotary_fraction <= 1.0,
            f"memaug.rotary_fraction is {self.rotary_fraction}; it must lie between 0 and 1",
        )
        if self.rope_theta is not None:
            require_number("memaug.rope_theta", self.rope_theta, above=0)
        for name in ("normalize_inputs", "rotate_values"):
            require_flag(f"memaug.{name}", getattr(self, name))
        require_choice("memaug.recall", self.recall, get_args(Recall))
        require_whole("memaug.recall_tokens", self.recall_tokens, 0, 4096)
        require(
            self.recall == "kept" or self.num_blocks > 0,
            "memaug.recall is 'question', which needs MemAug, but memaug.num_blocks is 0; set it to 1 or more, or "
            "memaug.recall to kept",
        )

    @property
    def num_recall_tokens(self) -> int:
        """Recall tokens of every sample with visuals: `recall_tokens`, or none in the published way."""
        return self.recall_tokens if self.recall == "question" else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data. The published way is not mentioned, so earlier versions read such a configuration too."""
        fields = dataclasses.asdict(self)
        if self.recall == "kept":
            del fields["recall"], fields["recall_tokens"]
        return fields


@dataclasses.dataclass(frozen=True)
class ForgettingConfig:
    """The choice of kept tokens (paper section 3.2; published: 1/4 in space, 1/4 in time).

    `uniform` in space keeps even rows and even columns: always a quarter, whatever `spatial_keep_ratio` is.
    """

    spatial: SpatialForgetting = "random"
    temporal: TemporalForgetting = "uniform"
    spatial_keep_ratio: float = 0.25
    temporal_keep_ratio: float = 0.25
    max_kept_frames: int = 512

    def __post_init__(self) -> None:
        require_choice("forgetting.spatial", self.spatial, get_args(SpatialForgetting))
        require_choice("forgetting.temporal", self.temporal, get_args(TemporalForgetting))
        for name in ("spatial_keep_ratio", "temporal_keep_ratio"):
            ratio = getattr(self, name)
            require_number(f"forgetting.{name}", ratio)
            require(0.0 < ratio <= 1.0, f"forgetting.{name} is {ratio}; it must lie above 0 and not above 1")
        require_whole("forgetting.max_kept_frames", self.max_kept_frames, 1, 2**31 - 1)


def check_recall(memaug: MemAugConfig, forgetting: ForgettingConfig) -> None:
    """Refuse forgetting by the question where kept tokens are the same for all questions.

    Raises:
        ConfigError: both are asked for.
    """
    require(
        memaug.recall == "kept" or forgetting.temporal != "question",
        "memaug.recall is 'question', so kept tokens are the same for all questions, but forgetting.temporal "
        "'question' chooses others for each; use uniform, random or keyframe, or set memaug.recall to kept",
    )


# Names besides its fields that transformers, this version or an earlier one, writes into configurations.
_TRANSFORMERS_NAMES = {
    *(field.name for field in dataclasses.fields(PreTrainedConfig)),
    *GenerationConfig().to_dict(),
    *("add_cross_attention", "attn_implementation", "auto_map", "bad_words_ids", "begin_suppress_tokens"),
    *("bos_token_id", "cross_attention_hidden_size", "decoder_start_token_id", "eos_token_id"),
    *("experts_implementation", "finetuning_task", "is_decoder", "model_type", "name_or_path", "num_labels"),
    *("output_attentions", "pad_token_id", "per_layer_config", "prefix", "pruned_heads", "quantization_config"),
    *("remove_invalid_values", "sep_token_id", "suppress_tokens", "task_specific_params", "tf_legacy_loss"),
    *("tie_encoder_decoder", "tokenizer_class", "torch_dtype", "torchscript", "use_bfloat16", "use_cache"),
}

# The largest allowed values; larger ones are mistakes.
_MAX_TOKENS = 2**31 - 1
_LARGEST = {
    "min_video_frames": 100_000,
    "max_image_tiles": 100,
    "max_image_grid_tiles": 10_000,
    "max_sequence_tokens": _MAX_TOKENS,
}


class HourLlavaConfig(PreTrainedConfig):
    """Everything that defines an Hour-LLaVA model.

    Attributes:
        text_config: the decoder.
        vision_config: the vision tower, as published, with all its layers.
        memaug: the memory attention.
        forgetting: the choice of kept tokens.
        vision_feature_layer: hidden state of the tower that gives the features, counted from the end; later layers are
            not built.
        vision_feature_width: width of a patch feature; the tower's if None.
        vision_tower_name: origin of the tower; written into exports of the released layout.
        video_grid: side of the pooled token grid of a video frame (8: 64 tokens a frame).
        min_video_frames: the frames of a shorter video are repeated up to this number.
        max_image_tiles: side of the largest tile grid of an image (6: up to 6 x 6 tiles); 1 means one view only.
        max_image_grid_tiles: a tile grid with more tokens than this many tiles is shrunk (anyres_max_9: 9).
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
        """Turn nested dictionaries into their classes and check every field.

        Raises:
            ConfigError: a name that neither we nor transformers know, a value that is not allowed, or an unverified
                family of decoder or tower.
        """
        own = {field.name for field in dataclasses.fields(self)}  # transformers' common fields among them
        unknown = sorted(name for name in kwargs if not name.startswith("_") and name not in _TRANSFORMERS_NAMES)
        if unknown:
            meant = _resembling(unknown[0], own)
            raise ConfigError(
                f"the configuration has no setting {', '.join(unknown)}"
                + (f"; did you mean {meant}?" if meant else f"; known are {', '.join(sorted(own))}")
            )
        self.text_config = _sub_config("text_config", self.text_config)
        self.vision_config = _sub_config("vision_config", self.vision_config)
        self.memaug = _from_dict(MemAugConfig, "memaug", self.memaug)
        self.forgetting = _from_dict(ForgettingConfig, "forgetting", self.forgetting)
        self._check()
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)
        self.vision_feature_width = self.vision_feature_width or self.vision_config.hidden_size
        if self.visual_token_id == LAST_VOCABULARY_ROW:
            self.visual_token_id = self.text_config.vocab_size - 1
        self.image_mean, self.image_std = tuple(self.image_mean), tuple(self.image_std)
        try:
            super().__post_init__(**kwargs)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # from a dtype, a label or an old setting
            raise ConfigError(f"the configuration is not one of transformers: {describe_error(error)}") from error

    def _check(self) -> None:
        text, vision = self.text_config, self.vision_config
        check_decoder(text)
        check_vision_tower(vision)
        check_recall(self.memaug, self.forgetting)
        num_layers = vision.num_hidden_layers
        is_whole = isinstance(self.vision_feature_layer, int) and not isinstance(self.vision_feature_layer, bool)
        require(
            is_whole and -num_layers <= self.vision_feature_layer <= -1,
            f"vision_feature_layer is {self.vision_feature_layer!r:.80}; the tower has {num_layers} layers, so it must "
            f"lie between {-num_layers} and -1",
        )
        require_whole("video_grid", self.video_grid, 1, MAX_IMAGE_PIXELS)
        require(
            self.video_grid <= self.patch_grid,
            f"video_grid is {self.video_grid}; it must lie between 1 and the tower's {self.patch_grid} patches a side",
        )
        for name, largest in _LARGEST.items():
            require_whole(name, getattr(self, name), 1, largest)
        require_whole("visual_token_id", self.visual_token_id, -_MAX_TOKENS, _MAX_TOKENS)
        if self.vision_feature_width is not None:
            require_whole("vision_feature_width", self.vision_feature_width, 1, MAX_WIDTH)
        require(
            self.vision_tower_name is None or isinstance(self.vision_tower_name, str),
            f"vision_tower_name is {self.vision_tower_name!r:.80}; it must be a text",
        )
        for name, above in (("image_mean", None), ("image_std", 0.0)):
            values = getattr(self, name)
            is_triple = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 3
            require(is_triple, f"{name} needs three numbers, got {values!r:.80}")
            for value in values:
                require_number(name, value, above=above)
        _ = self.rope_theta  # the decoder names it, or MemAug's own settings do

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
        output["memaug"] = self.memaug.to_dict()
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
        require(name in known, f"there is no preset {name!r}; choose one of {', '.join(known)}")
        return cls(**merge_settings(json.loads((folder / f"{name}.json").read_text()), overrides))


def merge_settings(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` changed by `above`: nested mappings key by key, everything else replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge_settings(merged[key], value) if both else value
    return merged


def _sub_config(name: str, value: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig:
    default_type = {"text_config": "qwen2", "vision_config": "siglip_vision_model"}[name]
    if isinstance(value, PreTrainedConfig):
        return value
    require(value is None or isinstance(value, Mapping), f"{name} is {value!r:.80}; it must be a mapping of settings")
    fields = dict(value or {})
    model_type = fields.pop("model_type", default_type)
    families = tuple(DECODERS) if name == "text_config" else VISION_FAMILIES
    require_family(name, model_type, families)
    kind = CONFIG_MAPPING[model_type]
    known = {name for family in families for name in _names(CONFIG_MAPPING[family])} | _TRANSFORMERS_NAMES
    for field in fields:
        # Published configurations hold fields that their class does not know, so only misspelt names are refused.
        meant = None if field in known else _resembling(str(field), _names(kind))
        require(meant is None, f"{name} has no setting {field}; did you mean {meant}?")
    require(
        not fields.get("per_layer_config"), f"{name}.per_layer_config is set; only layers that are alike are served"
    )
    try:
        return kind(**fields)
    except (StrictDataclassError, AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {describe_error(error)}") from error


def _names(kind: type[PreTrainedConfig]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map)


def _resembling(name: str, known: Collection[str]) -> str | None:
    """The known name that differs from a misspelt one in a letter or two."""
    return next(iter(difflib.get_close_matches(name, known, 1, cutoff=0.85)), None)


def _from_dict(kind: type[_Section], name: str, value: Any) -> _Section:
    if isinstance(value, kind):
        return value
    require(value is None or isinstance(value, Mapping), f"{name} is {value!r:.80}; it must be a mapping of settings")
    fields = dict(value or {})
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(map(str, set(fields) - known))
    require(not unknown, f"{name} has no setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return kind(**fields)


AutoConfig.register("hourllava", HourLlavaConfig, exist_ok=True)
