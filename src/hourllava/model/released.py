"""The release's layout of a checkpoint: its names of tensors, and its flat `config.json`.

The release (`jylins/hourllava-*`) and LLaVA-OneVision-SI name tensors after their own classes. `RELEASED_NAMES` is the
whole difference in names; shapes are the same.

    hourllava names                           released names
    model.language_model.layers.0...          model.layers.0...
    model.vision_tower.encoder...             model.vision_tower.vision_tower.vision_model.encoder...
    model.memaug.blocks.0.self_attn.qkv_proj  model.vision_resampler.layers.0.self_attn.Wqkv
"""

import re
from pathlib import Path
from typing import Any

import torch

from hourllava.errors import CheckpointError, ConfigError
from hourllava.model.backbones import attention_window
from hourllava.model.checkpoint_files import read_json
from hourllava.model.config import HourLlavaConfig

RELEASED_MODEL_TYPES = ("hour_llava_qwen", "llava", "llava_qwen")

RELEASED_NAMES = (
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("model.image_newline", "model.image_newline"),
    ("model.memaug.blocks.", "model.vision_resampler.layers."),
    ("model.language_model.", "model."),
    ("lm_head.", "lm_head."),
)
"""(our prefix, released prefix); the first that fits decides."""

MEMAUG_PREFIXES = ("model.memaug.", "model.vision_resampler.")
"""Prefixes of MemAug's tensors in our layout and in the released one."""

NEWLINE = "model.image_newline"
"""The name of the newline, in both layouts."""

RECALL_TOKENS = "model.memaug.recall_tokens"
"""Our name of the recall tokens, which only models with `memaug.recall: question` have."""

RELEASED_MEMAUG_NAMES = (
    (".self_attn.qkv_proj.", ".self_attn.Wqkv."),
    (".self_attn.o_proj.", ".self_attn.Wo."),
    (".cross_attn.q_proj.", ".cross_attn.Wq."),
    (".cross_attn.kv_proj.", ".cross_attn.Wkv."),
    (".cross_attn.o_proj.", ".cross_attn.Wo."),
    (".mlp.fc1.", ".mlp.0."),
    (".mlp.fc2.", ".mlp.2."),
)
"""(our part, released part) within a MemAug block; norms have the same names."""

VISION_TOWERS: dict[str, dict[str, Any]] = {
    "google/siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
}
"""Configurations of the vision towers that released configs name but do not describe."""

# Fields of a flat config that describe the decoder; the same names in ours.
TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)

# Fields that only our configuration has; the released layout fixes most of them.
OWN_FIELDS = (
    "memaug",
    "forgetting",
    "vision_feature_layer",
    "vision_feature_width",
    "video_grid",
    "min_video_frames",
    "max_image_tiles",
    "max_image_grid_tiles",
    "image_mean",
    "image_std",
    "visual_token_id",
    "max_sequence_tokens",
)

# Fields of a flat config with only one meaning served: the value when absent, and other values that mean the same.
FIXED_TEXT_FIELDS: dict[str, tuple[Any, ...]] = {
    "use_sliding_window": (False, None),
    "rope_scaling": (None, {}),
    "hidden_act": ("silu",),
}


def released_name(name: str) -> str:
    """The release's name of one of our tensors."""
    for ours, theirs in RELEASED_NAMES:
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
            break
    if name.startswith("model.vision_resampler."):
        for ours, theirs in RELEASED_MEMAUG_NAMES:
            name = name.replace(ours, theirs)
    return name


def released_config(folder: Path) -> HourLlavaConfig:
    """Our configuration of a checkpoint in the release's flat layout.

    The vision tower is looked up by `mm_vision_tower`, or read from a `vision_config.json` beside `config.json`.

    Raises:
        CheckpointError: the tower is neither known nor described.
    """
    flat = read_json(folder / "config.json")
    tower = flat.get("mm_vision_tower")
    if tower is not None and not isinstance(tower, str):
        raise CheckpointError(f"{folder} names the vision tower {tower!r:.80}; it must be a text")
    if (folder / "vision_config.json").is_file():
        vision = {"model_type": "siglip_vision_model", **read_json(folder / "vision_config.json")}
    elif tower in VISION_TOWERS:
        vision = dict(VISION_TOWERS[tower])
    else:
        raise CheckpointError(
            f"{folder} names the vision tower {tower!r}, which is not known; known: {', '.join(VISION_TOWERS)}. "
            "Describe it in a vision_config.json beside config.json"
        )
    return _from_flat(flat, vision)


def _from_flat(flat: dict[str, Any], vision: dict[str, Any]) -> HourLlavaConfig:
    for name, allowed in FIXED_TEXT_FIELDS.items():
        if flat.get(name, allowed[0]) not in allowed:
            raise CheckpointError(
                f"{name} is {flat[name]!r:.80}; in the released layout only {allowed[0]!r} is served, convert the "
                "checkpoint to our own"
            )
    text = {key: flat[key] for key in TEXT_FIELDS if key in flat}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": flat.get("rope_theta", 1e6)}
    tiling = re.fullmatch(r"anyres_max_(\d+)", flat.get("image_aspect_ratio") or "")
    return HourLlavaConfig(
        text_config={"model_type": "qwen2", **text},
        vision_config=vision,
        vision_tower_name=flat.get("mm_vision_tower"),
        memaug={"num_blocks": flat.get("memaug_depth", 4)},
        forgetting={"spatial": flat.get("spatial_sampling_type", "random")},
        vision_feature_layer=flat.get("mm_vision_select_layer", -2),
        vision_feature_width=flat.get("mm_hidden_size"),
        max_image_tiles=6 if tiling else 1,
        max_image_grid_tiles=int(tiling.group(1)) if tiling else 9,
        max_sequence_tokens=flat.get("tokenizer_model_max_length", 32768),
    )


def flat_config(config: HourLlavaConfig, dtype: torch.dtype) -> dict[str, Any]:
    """The flat `config.json` of a model, from which `released_config` makes the same configuration.

    Raises:
        CheckpointError: the layout cannot describe the model: another decoder than Qwen2, a decoder with windows,
            another token grid.
    """
    text = config.text_config
    if text.model_type != "qwen2":
        raise CheckpointError(
            f"the released layout holds a qwen2 decoder only, not {text.model_type!r}; use our own layout"
        )
    for name, value, plain in (
        ("sliding_window", attention_window(text), None),
        ("rope_type", text.rope_parameters.get("rope_type", "default"), "default"),
        ("hidden_act", text.hidden_act, "silu"),
    ):
        _require_same(name, value, plain)
    flat = _written_fields(config, dtype)
    try:
        read_back = _from_flat(flat, config.vision_config.to_dict())
    except ConfigError as error:
        raise CheckpointError(f"the released layout would make another model of this one: {error}") from error
    for field in OWN_FIELDS:
        _require_same(field, getattr(config, field), getattr(read_back, field))
    return flat


def _require_same(name: str, ours: Any, read_back: Any) -> None:
    if ours != read_back:
        raise CheckpointError(
            f"the released layout cannot say that {name} is {ours}, it would be read as {read_back}; use our own layout"
        )


def _written_fields(config: HourLlavaConfig, dtype: torch.dtype) -> dict[str, Any]:
    size, tiles = config.vision_config.image_size, range(1, config.max_image_tiles + 1)
    return {
        "architectures": ["HourLlavaQwenForCausalLM"],
        "model_type": RELEASED_MODEL_TYPES[0],
        **{key: getattr(config.text_config, key) for key in TEXT_FIELDS},
        "hidden_act": config.text_config.hidden_act,
        "rope_theta": config.text_config.rope_parameters["rope_theta"],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "mm_vision_tower": config.vision_tower_name,
        "mm_hidden_size": config.vision_feature_width,
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": "memaug",
        "memaug_depth": config.memaug.num_blocks,
        "spatial_sampling_type": config.forgetting.spatial,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "grid",
        "mm_spatial_pool_mode": "bilinear",
        "image_aspect_ratio": f"anyres_max_{config.max_image_grid_tiles}" if len(tiles) > 1 else "pad",
        "image_grid_pinpoints": [[columns * size, rows * size] for columns in tiles for rows in tiles],
        "add_faster_video": False,
        "tokenizer_model_max_length": config.max_sequence_tokens,
        "tokenizer_padding_side": "right",
    }
