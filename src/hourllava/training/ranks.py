"""The processes of a run: how many there are, how they meet, and how they wait for each other."""

import datetime
import os
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate.state import PartialState

_PATIENCE = datetime.timedelta(days=30)

_patient: dist.ProcessGroup | None = None
"""Group of all processes, over gloo. It waits for disks, longer than a collective of training may take."""

Result = TypeVar("Result")


def num_processes() -> int:
    """Number of processes of this run, as torchrun sets it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_processes() -> None:
    """Join the process group that torchrun describes, or make one for a single GPU, which FSDP2 needs.

    A group also keeps transformers from spreading one process over all visible GPUs.
    """
    on_gpu = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ and on_gpu:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update(alone)
    PartialState(cpu=not on_gpu)
    make_patient_group()
    # cuDNN's attention makes a plan for each number of frames, and the tower gets another number in every batch: 285 ms
    # a step of nano instead of 123 ms. `packed_attention` calls cuDNN itself where a plan is worth its time.
    torch.backends.cuda.enable_cudnn_sdp(False)


def leave_processes() -> None:
    """End the process group, if there is one, before Python ends.

    gloo's threads need Python's lock to release finished work. A thread that asks for the lock while Python ends aborts
    the process (pytorch#190489). Destroying the group does not wait for these threads, because others hold it too.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(0.1)  # so that the threads get the lock


def is_main() -> bool:
    """Whether this is the first process, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def make_patient_group() -> None:
    """Make the group in which processes wait for disk work. All processes must call this together."""
    global _patient
    if dist.is_initialized() and dist.get_world_size() > 1:
        _patient = dist.new_group(backend="gloo", timeout=_PATIENCE)


def barrier() -> None:
    """Wait for all processes, without a time limit."""
    if _patient is not None:
        dist.barrier(_patient)


def from_main(action: Callable[[], Result]) -> Result:
    """Run an action on the main process, and return its result on all processes.

    The other processes wait without a time limit: measuring takes hours, and a collective of training would give up.
    """
    results = [action() if is_main() else None]
    if _patient is not None:
        dist.broadcast_object_list(results, src=0, group=_patient)
    result: Any = results[0]
    return result
