"""Checkpoints of a run: whole or not there, loadable as a model, resumable on any number of processes.

    OUT/checkpoint-500/config.json, *.safetensors, tokenizer    the model, as `load_model` reads it
    OUT/checkpoint-500/state/                                   trained weights in fp32, optimizer: sharded (torch DCP)
    OUT/checkpoint-500/trainer_state.json, recipe.yaml
    OUT/checkpoint-500/plan.json                                what must stay the same (`hourllava.training.identity`)
    OUT/checkpoint-500/lengths.npz                              lengths that the plan was made from, stream by stream
    OUT/final/                                                  the finished model, without state

The state is written by all processes at once, keyed by parameter names, so another number of processes, DDP or FSDP
reads it alike. A checkpoint is written under a hidden name and renamed when complete; older ones go only after that.
"""

import datetime
import json
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

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

FINAL = "final"
STATE = "state"
PLAN = "plan.json"
LENGTHS = "lengths.npz"
_NAME = re.compile(r"checkpoint-(\d+)")
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
_FAILED_WRITES = ("No space left", "failed writing", "inline_container.cc", "iostream error")
_TORCHS_REASON = "a write failed; the disk is full, or files may not grow so large"
_PATIENCE = datetime.timedelta(days=30)

_patient: dist.ProcessGroup | None = None
"""All processes, on their CPUs: waits here are for disks, and may take longer than a collective of training may."""

Result = TypeVar("Result")


def checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [(int(match[1]), path) for path in out.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def how_to_go_on(out: Path) -> str:
    """What a user can do after a run that ended before its time."""
    kept = checkpoints(out)
    return f"the same command goes on from {kept[-1]}" if kept else "no checkpoint had been written yet"


def step_of(checkpoint: Path) -> int:
    """Steps a checkpoint's model was trained for."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `target` for all processes to write into; rename it when the block ends well.

    Raises:
        CheckpointError: it cannot be written; what was there before is untouched.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        if is_main():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        barrier()
        yield partial
        barrier()
        if is_main():
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        barrier()
    except (OSError, SafetensorError, CheckpointException, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)
        kept = checkpoints(target.parent)
        after = f"{kept[-1]} is whole: " if kept else ""
        raise CheckpointError(
            f"{target} cannot be written ({reason}); {after}free space or choose another `out`, then run the same "
            "command again"
        ) from error


def _reason(error: BaseException) -> str | None:
    """What an operating system says is wrong, however deep it is wrapped; None if it says nothing.

    Torch's writer of archives finds, after a write that failed, that it is not where it should be, and says only that.
    """
    causes: list[BaseException] = [error]
    for cause in causes:  # which grows
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
    """Write trained weights and optimizer state, each process its own part."""
    with _alone_or_not() as no_dist:
        save(_state(model, optimizer), checkpoint_id=folder, no_dist=no_dist)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read what `save_state` wrote, by any number of processes; rates and the like stay those of the optimizer given.

    Raises:
        CheckpointError: it is missing or damaged, or of a run that trains other parameters.
    """
    state = _state(model, optimizer)
    groups = state["optimizer"].pop("param_groups")  # as the recipe has them now; those of the checkpoint are old
    try:
        with _alone_or_not() as no_dist:
            load(state, checkpoint_id=folder, no_dist=no_dist)
    except (CheckpointException, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder} cannot be read back ({reason}); it is damaged, or of a run that trains other parameters. "
            "Remove that checkpoint to go on from the one before"
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
    """Whether there are no other processes; torch warns if it is told so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield not dist.is_initialized()


def gather_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights of a model on the CPU of the main process; empty elsewhere."""
    weights: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return {name: _owned(tensor) for name, tensor in weights.items()}


def _owned(tensor: Tensor) -> Tensor:
    """A tensor with a storage of its own: FSDP gathers unequal parts with filling behind them, which is not written."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def write_json(path: Path, content: Any) -> None:
    """Write JSON, from the main process only."""
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
        raise CheckpointError(f"{path} cannot be read ({error}); remove that checkpoint to go on without it") from error


def remove_older(out: Path, keep: int) -> None:
    """Keep only the newest checkpoints; from the main process."""
    if is_main():
        for path in checkpoints(out)[:-keep]:
            shutil.rmtree(path, ignore_errors=True)


def is_main() -> bool:
    """Whether this process is the only one, or the first."""
    return not dist.is_initialized() or dist.get_rank() == 0


def make_patient_group() -> None:
    """Make the group in which processes wait for each other's work on disks; all of them call this together."""
    global _patient
    if dist.is_initialized() and dist.get_world_size() > 1:
        _patient = dist.new_group(backend="gloo", timeout=_PATIENCE)


def barrier() -> None:
    """Wait for all processes, however long that takes."""
    if _patient is not None:
        dist.barrier(_patient)


def from_main(action: Callable[[], Result]) -> Result:
    """Do something on the main process only; what comes of it goes to all of them.

    The others wait in a group of their own: measuring takes hours, and a collective of training would give up.
    """
    results = [action() if is_main() else None]
    if _patient is not None:
        dist.broadcast_object_list(results, src=0, group=_patient)
    result: Any = results[0]
    return result


def write_lengths(folder: Path, lengths: Sequence[Lengths]) -> None:
    """Keep the lengths of all streams, from the main process only."""
    if is_main():
        np.savez(folder / LENGTHS, *lengths)


def read_lengths(checkpoint: Path) -> list[Lengths] | None:
    """The lengths that a checkpoint's plan was made from; None of one that older versions wrote.

    Raises:
        CheckpointError: they are damaged.
    """
    path = checkpoint / LENGTHS
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return [arrays[f"arr_{k}"] for k in range(len(arrays.files))]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); remove that checkpoint to go on without it") from error
