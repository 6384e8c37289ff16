"""Reading a checkpoint's folder: its JSON files and the tensors of its safetensors files, nothing outside it."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hourllava.errors import CheckpointError
from hourllava.model.checks import one_line


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files, mapped into memory, not copied.

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
    """Names of the files that an index of weights speaks of; all lie beside it."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index} must hold a weight_map from tensors to file names; download it again")
    names = sorted(set(weight_map.values()))
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise CheckpointError(f"{index} names the file {name!r:.120}; weights lie beside their index, in no folder")
    return names


def _check_inside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of a checkpoint's folder.

    The hub's cache is made of links, from `snapshots/REVISION/` to `blobs/` beside it.
    """
    try:
        real, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:  # links that lead to each other
        raise CheckpointError(f"{path} cannot be followed ({one_line(error)})") from error
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(real.is_relative_to(place) for place in homes):
        raise CheckpointError(f"{path} is a link out of its folder, to {real}; copy the file into the folder")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({one_line(error)}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return content
