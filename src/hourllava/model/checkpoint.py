"""Checkpoints: found, loaded and written, in our own layout and in the release's (`hourllava.model.released`).

The `model_type` of a folder's `config.json` decides its layout; the folder's name never does. Pickled weights are
refused. Every other fault of a folder is a `CheckpointError`.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from hourllava.errors import CheckpointError
from hourllava.model.checkpoint_files import read_json, read_tensors
from hourllava.model.checks import describe_error
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.released import (
    MEMAUG_PREFIXES,
    NEWLINE,
    RECALL_TOKENS,
    RELEASED_MODEL_TYPES,
    VISION_TOWERS,
    flat_config,
    released_config,
    released_name,
)

PACKAGED = {"nano": Path(__file__).parent / "nano"}
"""Checkpoints that come with the library."""

MAX_SHARD_BYTES = 5 * 10**9


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a checkpoint, by name (ours, except `unexpected`).

    Attributes:
        loaded: come from the checkpoint.
        fresh: are not in the checkpoint and newly initialised: MemAug, when training starts from an image model, or
            recall tokens, when it starts from a model without them; these begin as newlines.
        unexpected: are in the checkpoint, but have no place in the model.
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


def load_config(folder: Path) -> HourLlavaConfig:
    """The configuration of a checkpoint of any layout.

    Raises:
        CheckpointError: it is of another kind of model, or a setting is not allowed.
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
    except Exception as error:  # an odd setting can raise anything in transformers
        raise CheckpointError(f"{folder / 'config.json'}: {describe_error(error)}") from error
    return config


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
        device: of the weights; the CPU if None.
        config: replaces the checkpoint's own.
        fresh_memaug: make a new MemAug, even if the checkpoint has one.

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
        del stored_names["lm_head.weight"]  # tied: a copy in the checkpoint is not needed
        tensors.pop("lm_head.weight", None)

    if fresh_memaug:
        tensors = {stored: tensor for stored, tensor in tensors.items() if not stored.startswith(MEMAUG_PREFIXES)}
        has_memaug = False
    elif released:
        has_memaug = any(stored.startswith(MEMAUG_PREFIXES) for stored in tensors)
    else:  # stage 0 ends without one
        has_memaug = load_config(folder).memaug.num_blocks > 0
    has_recall_tokens = not released and load_config(folder).memaug.num_recall_tokens > 0
    missing = [key for key, stored in stored_names.items() if stored not in tensors]
    fresh = [] if has_memaug else [key for key in missing if key.startswith(MEMAUG_PREFIXES)]
    if not has_recall_tokens and RECALL_TOKENS in missing and RECALL_TOKENS not in fresh:
        fresh.append(RECALL_TOKENS)
    lost = sorted(set(missing) - set(fresh))
    if lost:
        raise CheckpointError(
            f"{folder} lacks {len(lost)} tensors, first {stored_names[lost[0]]}; the download may be incomplete, or "
            "config.json belongs to another model"
        )
    state: dict[str, Tensor] = {}
    for key, stored in stored_names.items():
        if stored in tensors:
            state[key] = tensors.pop(stored)
            _check_tensor(stored, state[key], expected[key], folder)
    report = LoadReport(tuple(state), tuple(fresh), tuple(sorted(tensors)))
    if RECALL_TOKENS in fresh:
        # They begin as newlines, which stand in the video as recall tokens do: the decoder reads what they find at
        # once. Nano without recall tokens, given 16 of them, finds and names 12 of 12 cards untrained, 8 with random
        # ones.
        state[RECALL_TOKENS] = state[NEWLINE].expand(expected[RECALL_TOKENS]).clone()
    model = HourLlavaForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype or _common_dtype(state.values())
    )
    model.config.name_or_path = ""  # transformers writes "None" there
    return model.to(device or "cpu").eval(), report


def _check_tensor(stored: str, tensor: Tensor, expected: torch.Size, folder: Path) -> None:
    if tensor.shape != expected:
        raise CheckpointError(
            f"{stored} has shape {list(tensor.shape)} in {folder}, but the configuration makes it {list(expected)}; "
            "weights and configuration belong to different models"
        )
    if not tensor.is_floating_point():
        raise CheckpointError(f"{stored} is of type {tensor.dtype} in {folder}; weights must be floating-point")


def _expected_shapes(config: HourLlavaConfig, folder: Path) -> dict[str, torch.Size]:
    """Shapes of all tensors that the configuration needs, by our names."""
    try:
        with torch.device("meta"):
            return {key: value.shape for key, value in HourLlavaForConditionalGeneration(config).state_dict().items()}
    except Exception as error:  # an odd setting can raise anything in transformers' modules
        raise CheckpointError(f"the configuration of {folder} makes no model ({describe_error(error)})") from error


def export_released(model: HourLlavaForConditionalGeneration, folder: str | Path) -> None:
    """Write a model in the release's layout: flat `config.json` and safetensors with released names.

    Raises:
        CheckpointError: that layout cannot describe the model, see `flat_config`.
    """
    config, folder = model.config, Path(folder)
    flat = flat_config(config, model.dtype)
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
        folder: must exist.
        max_shard_bytes: size of the largest file; a larger model gets several files and an index.
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


def _common_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
