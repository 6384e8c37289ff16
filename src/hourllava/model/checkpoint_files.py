"""Files of a checkpoint's folder: JSON files, the tokenizer, safetensors files. Nothing outside the folder is read."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from hourllava.errors import CheckpointError
from hourllava.model.checks import describe_error


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files, mapped into memory without a copy.

    Raises:
        CheckpointError: no safetensors, a shard missing, damaged or outside the folder, or pickled weights only.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in _indexed_files(index)]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".pt", ".pth")]
        if pickles:
            raise CheckpointError(
                f"{folder} holds pickled weights only ({pickles[0]}), which can run any code when read; "
                "convert them to safetensors where you trust them"
            )
        raise CheckpointError(f"{folder} holds no weights (*.safetensors)")
    tensors: dict[str, Tensor] = {}
    for path in files:
        _check_inside(path, folder)
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                tensors.update({name: file.get_tensor(name) for name in names})
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is named in the index but missing; download it again") from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged or cut short ({error}); download it again") from error
    return tensors


def _indexed_files(index: Path) -> list[str]:
    """Names of the files in an index of weights; all lie beside it."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index} must hold a weight_map from tensors to file names; download it again")
    names = sorted(set(weight_map.values()))
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise CheckpointError(f"{index} names the file {name!r:.120}; weights lie beside their index, in no folder")
    return names


def _check_inside(path: Path, folder: Path) -> None:
    """Refuse a link out of a checkpoint's folder.

    In the hub's cache all files are links, from `snapshots/REVISION/` to `blobs/`; these are allowed.
    """
    try:
        real, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, or a name with a zero byte
        raise CheckpointError(f"{path} cannot be followed ({describe_error(error)})") from error
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(real.is_relative_to(place) for place in homes):
        raise CheckpointError(f"{path} is a link out of its folder, to {real}; copy the file into the folder")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: there is no such file, or it holds no JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({describe_error(error)}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return content


def load_tokenizer(folder: Path, text_config: PreTrainedConfig) -> Any:
    """The tokenizer as it was saved.

    `tokenizer.json` is complete, but AutoTokenizer would take only its vocabulary and cut text like the decoder's
    family, which treats digits and spaces differently from nano. Code in the folder is never run.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        else:
            # With the decoder's config, transformers does not read config.json, whose type it may not know.
            tokenizer = AutoTokenizer.from_pretrained(folder, config=text_config, trust_remote_code=False)
        # Some damage shows only when the tokenizer is used.
        ids = tokenizer(["a b"], add_special_tokens=False, split_special_tokens=True).input_ids[0]
        tokenizer.decode(ids, skip_special_tokens=True)
        _ = (*map(int, ids), len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id)
    except Exception as error:  # tokenizers raises bare Exceptions, transformers many kinds
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be used ({describe_error(error)}); download it again"
        ) from error
    return tokenizer
