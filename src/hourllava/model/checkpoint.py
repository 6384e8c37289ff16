"""Published checkpoints: read in their own layout, written back in it.

The release (`jylins/hourllava-*`) and LLaVA-OneVision-SI keep everything in one flat `config.json` and name their
tensors after their own classes. `RELEASED_NAMES` is the whole difference in names; shapes are the same. What a folder
is, its `model_type` says, never the look of its path. Pickled weights are refused. Whatever else is wrong with a folder
is a `CheckpointError`.

    hourllava names                           released names
    model.language_model.layers.0...          model.layers.0...
    model.vision_tower.encoder...             model.vision_tower.vision_tower.vision_model.encoder...
    model.memaug.blocks.0.self_attn.qkv_proj  model.vision_resampler.layers.0.self_attn.Wqkv
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from hourllava.errors import CheckpointError, ConfigError
from hourllava.model.backbones import attention_window
from hourllava.model.checkpoint_files import read_json, read_tensors
from hourllava.model.checks import one_line
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration

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
"""(our prefix, released prefix), the first that fits decides."""

PACKAGED = {"nano": Path(__file__).parent / "nano"}
"""Checkpoints that come with the library."""

MEMAUG_PREFIXES = ("model.memaug.", "model.vision_resampler.")
"""In our layout and in the released one."""

RELEASED_MEMAUG_NAMES = (
    (".self_attn.qkv_proj.", ".self_attn.Wqkv."),
    (".self_attn.o_proj.", ".self_attn.Wo."),
    (".cross_attn.q_proj.", ".cross_attn.Wq."),
    (".cross_attn.kv_proj.", ".cross_attn.Wkv."),
    (".cross_attn.o_proj.", ".cross_attn.Wo."),
    (".mlp.fc1.", ".mlp.0."),
    (".mlp.fc2.", ".mlp.2."),
)
"""(our part, released part) within a MemAug block; norms are called the same."""

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
"""Numbers of the vision towers that released configs name but do not describe."""

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

# Fields that are ours; the released layout fixes most of them.
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

# Fields of a flat config that its layout fixes: what they are without a word, and what else says the same.
FIXED_TEXT_FIELDS: dict[str, tuple[Any, ...]] = {
    "use_sliding_window": (False, None),
    "rope_scaling": (None, {}),
    "hidden_act": ("silu",),
}

MAX_SHARD_BYTES = 5 * 10**9


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a checkpoint, by name (ours, except `unexpected`).

    Attributes:
        loaded: taken from the checkpoint.
        fresh: parts the checkpoint does not have, newly initialised: MemAug when starting from an image model.
        unexpected: tensors of the checkpoint that the model has no place for.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for kind in ("fresh", "unexpected"):
            names = getattr(self, kind)
            if names:
                parts.append(f"{len(names)} {kind}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}")
        return "; ".join(parts)


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


def find_checkpoint(name: str | Path, *, weights: bool = True) -> Path:
    """The folder of a checkpoint: one in the package, `name` itself, or a download from the Hugging Face hub.

    Args:
        name: "nano", a folder, or a name on the hub.
        weights: download them too; without them configuration and tokenizer come in a second.

    Raises:
        CheckpointError: neither a folder with a `config.json` nor a name that the hub gives (offline, misspelt).
    """
    folder = PACKAGED.get(str(name), Path(name))
    try:
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise CheckpointError(f"{folder} holds no config.json; give the folder of a checkpoint")
            return folder
        patterns = ["*.json", "*.txt", "*.jinja", *(["*.safetensors"] if weights else [])]
        return Path(snapshot_download(str(name), allow_patterns=patterns))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"there is no folder {str(name)!r:.120}, and the hub did not give a model of that name "
            f"({type(error).__name__}); check the spelling, or the network"
        ) from error


def is_released_layout(folder: Path) -> bool:
    """Whether a folder holds the release's flat layout; its `model_type` says so."""
    return read_json(folder / "config.json").get("model_type") in RELEASED_MODEL_TYPES


def load_model(
    name: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    config: HourLlavaConfig | None = None,
    fresh_memaug: bool = False,
) -> tuple[HourLlavaForConditionalGeneration, LoadReport]:
    """Load a checkpoint of any layout: ours, the release's, LLaVA-OneVision-SI's.

    Args:
        name: folder, or name on the hub.
        dtype: of the weights; as stored if None.
        device: where they go; the CPU if None.
        config: instead of the checkpoint's own, to read it with other settings.
        fresh_memaug: leave the checkpoint's MemAug aside and make a new one, as after stage 0, which has none.

    Returns:
        the model in evaluation mode, and what became of every tensor.

    Raises:
        CheckpointError: no checkpoint there, pickled or damaged weights, missing tensors, wrong shapes, unknown tower.
    """
    folder = find_checkpoint(name)
    config = config or load_config(folder)
    released = is_released_layout(folder)
    tensors = read_tensors(folder)
    expected = _expected_shapes(config, folder)
    stored_names = {key: released_name(key) if released else key for key in expected}
    if config.tie_word_embeddings:
        del stored_names["lm_head.weight"]  # tied; a copy in the checkpoint says nothing new
        tensors.pop("lm_head.weight", None)

    if fresh_memaug:
        tensors = {stored: tensor for stored, tensor in tensors.items() if not stored.startswith(MEMAUG_PREFIXES)}
        has_memaug = False
    elif released:
        has_memaug = any(stored.startswith(MEMAUG_PREFIXES) for stored in tensors)
    else:  # stage 0 ends without one
        has_memaug = load_config(folder).memaug.num_blocks > 0
    missing = [key for key, stored in stored_names.items() if stored not in tensors]
    fresh = [] if has_memaug else [key for key in missing if key.startswith(MEMAUG_PREFIXES)]
    lost = sorted(set(missing) - set(fresh))
    if lost:
        raise CheckpointError(
            f"{folder} lacks {len(lost)} tensors, first {stored_names[lost[0]]}; the download may be incomplete, or "
            "config.json belongs to another model"
        )
    state: dict[str, Tensor] = {}
    for key, stored in stored_names.items():
        if stored not in tensors:
            continue
        tensor = tensors.pop(stored)
        if tensor.shape != expected[key]:
            raise CheckpointError(
                f"{stored} has shape {list(tensor.shape)} in {folder}, but the configuration makes it "
                f"{list(expected[key])}; weights and configuration belong to different models"
            )
        if not tensor.is_floating_point():
            raise CheckpointError(f"{stored} is of type {tensor.dtype} in {folder}; weights must be floating-point")
        state[key] = tensor
    model = HourLlavaForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype or _common_dtype(state.values())
    )
    model.config.name_or_path = ""  # transformers writes "None" there
    report = LoadReport(tuple(state), tuple(fresh), tuple(sorted(tensors)))
    return model.to(device or "cpu").eval(), report


def _expected_shapes(config: HourLlavaConfig, folder: Path) -> dict[str, torch.Size]:
    """Every tensor that the configuration asks for, by our name."""
    try:
        with torch.device("meta"):
            return {key: value.shape for key, value in HourLlavaForConditionalGeneration(config).state_dict().items()}
    except Exception as error:  # transformers' modules raise whatever comes of an odd setting
        raise CheckpointError(f"the configuration of {folder} makes no model ({one_line(error)})") from error


def released_config(folder: Path) -> HourLlavaConfig:
    """Our configuration of a checkpoint in the release's flat layout.

    The vision tower is looked up by `mm_vision_tower`, or read from a `vision_config.json` beside `config.json`.

    Raises:
        CheckpointError: a tower that is neither known nor described.
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


def export_released(model: HourLlavaForConditionalGeneration, folder: str | Path) -> None:
    """Write a model in the release's layout: flat `config.json` and safetensors with released names.

    Raises:
        CheckpointError: the model is something that layout cannot say: another decoder than Qwen2, one with windows,
            another token grid.
    """
    config, folder = model.config, Path(folder)
    if config.text_config.model_type != "qwen2":
        raise CheckpointError(
            f"the released layout holds a qwen2 decoder only, not {config.text_config.model_type!r}; use our own layout"
        )
    text = config.text_config
    for name, value, plain in (
        ("sliding_window", attention_window(text), None),
        ("rope_type", text.rope_parameters.get("rope_type", "default"), "default"),
        ("hidden_act", text.hidden_act, "silu"),
    ):
        if value != plain:
            raise CheckpointError(
                f"the released layout cannot say that {name} is {value}, it would be read as {plain}; use ours"
            )
    flat = _flat_config(config, model.dtype)
    try:
        read_back = _from_flat(flat, config.vision_config.to_dict())
    except ConfigError as error:
        raise CheckpointError(f"the released layout would make another model of this one: {error}") from error
    for field in OWN_FIELDS:
        ours, theirs = getattr(config, field), getattr(read_back, field)
        if ours != theirs:
            raise CheckpointError(
                f"the released layout cannot say that {field} is {ours}, it would be read as {theirs}; use "
                "our own layout"
            )
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(
        config, {released_name(name): tensor for name, tensor in model.state_dict().items()}, folder, MAX_SHARD_BYTES
    )
    _write_json(folder / "config.json", flat)
    if config.vision_tower_name not in VISION_TOWERS:
        _write_json(folder / "vision_config.json", config.vision_config.to_dict())


def save_weights(
    config: HourLlavaConfig, state: Mapping[str, Tensor], folder: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write a model in our layout from its weights by name, as `load_model` reads it.

    Args:
        config: of the model.
        state: all weights by their names in the model.
        folder: that exists.
        max_shard_bytes: more than this is written as several files and an index of them.
    """
    _write_tensors(config, state, folder, max_shard_bytes)
    dtype = _common_dtype(state.values())
    _write_json(folder / "config.json", {**config.to_dict(), **_written_fields(dtype)})


def _write_tensors(config: HourLlavaConfig, state: Mapping[str, Tensor], folder: Path, max_shard_bytes: int) -> None:
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    kept = {name: tensor.contiguous() for name, tensor in state.items() if name not in tied}
    save_torch_state_dict(kept, folder, max_shard_size=max_shard_bytes, safe_serialization=True)


def _written_fields(dtype: torch.dtype) -> dict[str, Any]:
    """What transformers' own `save_pretrained` adds to a configuration."""
    return {
        "architectures": [HourLlavaForConditionalGeneration.__name__],
        "dtype": str(dtype).removeprefix("torch."),
    }


def _flat_config(config: HourLlavaConfig, dtype: torch.dtype) -> dict[str, Any]:
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


def load_config(folder: Path) -> HourLlavaConfig:
    """The configuration in a checkpoint's folder, of any layout.

    Raises:
        CheckpointError: it is of another kind of model, or holds what is not allowed.
    """
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in (HourLlavaConfig.model_type, *RELEASED_MODEL_TYPES):
        allowed = ", ".join((HourLlavaConfig.model_type, *RELEASED_MODEL_TYPES))
        raise CheckpointError(f"{folder} holds a {model_type!r:.80} model; allowed are {allowed}")
    try:
        if model_type in RELEASED_MODEL_TYPES:
            return released_config(folder)
        config: HourLlavaConfig = HourLlavaConfig.from_pretrained(folder)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises whatever comes of an odd setting
        raise CheckpointError(f"{folder / 'config.json'}: {one_line(error)}") from error
    return config


def _common_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
