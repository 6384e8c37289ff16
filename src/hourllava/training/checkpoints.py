"""Checkpoints of a run: complete or absent, loadable as a model, resumable on any number of processes.

    OUT/checkpoint-500/config.json, *.safetensors, tokenizer    the model, as `load_model` reads it
    OUT/checkpoint-500/state/                                   trained weights in fp32, optimizer: sharded (torch DCP)
    OUT/checkpoint-500/trainer_state.json, recipe.yaml
    OUT/checkpoint-500/plan.json                                what must not change (`hourllava.training.identity`)
    OUT/checkpoint-500/lengths.npz                              the sample lengths behind the plan, for each stream
    OUT/final/                                                  the trained model, without state

All processes write the state together, under parameter names. So any number of processes can read it, with DDP or FSDP.
A checkpoint is written under a hidden name and renamed when it is complete. Older checkpoints are removed after that.
"""

import json
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from hourllava.data.batches.cost import Lengths
from hourllava.errors import CheckpointError
from hourllava.files import replacing_folder
from hourllava.training.ranks import barrier, is_main

FINAL = "final"
STATE = "state"
PLAN = "plan.json"
LENGTHS = "lengths.npz"
_NAME = re.compile(r"checkpoint-(\d+)")
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
_FAILED_WRITES = ("No space left", "failed writing", "inline_container.cc", "iostream error")
_TORCHS_REASON = "a write failed; the disk is full, or files may not grow so large"


def checkpoints(out: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [(int(match[1]), path) for path in out.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def how_to_go_on(out: Path) -> str:
    """What a user can do after a run that failed."""
    kept = checkpoints(out)
    return f"the same command resumes from {kept[-1]}" if kept else "no checkpoint was written yet"


def step_of(checkpoint: Path) -> int:
    """Number of steps that a checkpoint's model was trained for."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `target` for all processes to write into; rename it when the block succeeds.

    Raises:
        CheckpointError: it cannot be written; an older `target` is untouched.
    """
    partial = target.with_name(f".{target.name}.partial")  # as `replacing_folder` names it, on the main process
    try:
        with replacing_folder(target) if is_main() else nullcontext(partial) as folder:
            barrier()
            yield folder
            barrier()
        barrier()
    except (OSError, SafetensorError, CheckpointException, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        kept = checkpoints(target.parent)
        after = f"{kept[-1]} is complete: " if kept else ""
        raise CheckpointError(
            f"{target} cannot be written ({reason}); {after}free space or choose another `out`, then run the same "
            "command again"
        ) from error


def _reason(error: BaseException) -> str | None:
    """Why a write failed, however deep the cause is wrapped; None for any other error.

    After a failed write, torch's archive writer reports only a wrong file position, so its message is replaced.
    """
    causes: list[BaseException] = [error]
    for cause in causes:  # the list grows meanwhile
        if isinstance(cause, CheckpointException):
            causes += [failure[0] for failure in cause.failures.values()]
        causes += [inner for inner in (cause.__cause__, cause.__context__) if inner is not None and inner not in causes]
    for cause in causes:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
    for cause in causes:
        if isinstance(cause, SafetensorError) or any(part in str(cause) for part in _FAILED_WRITES):
            return _TORCHS_REASON if "inline_container.cc" in str(cause) else " ".join(str(cause).split())[:200]
    return None


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write trained weights and optimizer state; each process writes its part."""
    with _alone_or_not() as no_dist:
        save(_state(model, optimizer), checkpoint_id=folder, no_dist=no_dist)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read what `save_state` wrote, on any number of processes. The optimizer keeps its own rates and settings.

    Raises:
        CheckpointError: the state is missing or damaged, or belongs to a run that trains other parameters.
    """
    state = _state(model, optimizer)
    groups = state["optimizer"].pop("param_groups")  # from the recipe as it is now, not from the checkpoint
    try:
        with _alone_or_not() as no_dist:
            load(state, checkpoint_id=folder, no_dist=no_dist)
    except (CheckpointException, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder} cannot be read back ({reason}); it is damaged, or belongs to a run that trains other "
            "parameters. Remove that checkpoint to resume from the one before"
        ) from error
    set_model_state_dict(model, state["model"], options=_TRAINED)
    set_optimizer_state_dict(model, optimizer, state["optimizer"] | {"param_groups": groups}, options=_TRAINED)


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "model": get_model_state_dict(model, options=_TRAINED),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=_TRAINED),
    }


@contextmanager
def _alone_or_not() -> Iterator[bool]:
    """Whether this process is alone, for `no_dist`; torch warns about that argument."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield not dist.is_initialized()


def gather_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights of a model, on the CPU of the main process; empty on other processes."""
    weights: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return {name: _owned(tensor) for name, tensor in weights.items()}


def _owned(tensor: Tensor) -> Tensor:
    """The tensor with its own storage. FSDP pads unequal parts when it gathers them; padding must not be written."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def write_json(path: Path, content: Any) -> None:
    """Write JSON, on the main process only."""
    if is_main():
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, reason: object) -> CheckpointError:
    """The error for a file of a checkpoint that cannot be read."""
    return CheckpointError(f"{path} cannot be read ({reason}); remove that checkpoint to resume without it")


def remove_older(out: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, on the main process only."""
    if is_main():
        for path in checkpoints(out)[:-keep]:
            shutil.rmtree(path, ignore_errors=True)


def write_lengths(folder: Path, lengths: Sequence[Lengths]) -> None:
    """Write the lengths of all streams, on the main process only."""
    if is_main():
        np.savez(folder / LENGTHS, *lengths)


def read_lengths(checkpoint: Path) -> list[Lengths] | None:
    """The sample lengths behind a checkpoint's plan; None if an older version wrote the checkpoint.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = checkpoint / LENGTHS
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return [arrays[f"arr_{k}"] for k in range(len(arrays.files))]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise unreadable(path, error) from error
