"""On which device a model runs, in which dtype, and what fits beside it."""

import logging
import os
import threading
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.errors import ConfigError, InputError

# Share of the free device memory that features, or keys and values, may take; above it they stay on the host.
MAX_SHARE_OF_FREE_MEMORY = 0.6

_log = logging.getLogger(__name__)
_first_process = os.getpid()
_checked = threading.local()  # of each thread: the process in which it was checked
_warned_process = os.getpid()


def check_fork(made_in_process: int, device: torch.device) -> None:
    """Make torch usable in a forked process; call it before torch computes.

    A forked process would wait for ever for the threads of its parent's torch. On the CPU it is therefore set to one
    thread, with a warning. Every thread that computes must call this: torch counts threads for each of them. A GPU
    cannot be used after a fork.

    Args:
        made_in_process: id of the process that loaded the model.
        device: of the model.

    Raises:
        InputError: the model is on a GPU and was loaded before the fork.
    """
    global _warned_process
    process = os.getpid()
    if process != made_in_process and device.type != "cpu":
        raise InputError(
            f"this process was forked after the model was loaded onto {device}, which does not survive a fork: start"
            " processes with multiprocessing's 'spawn', and load the model in each"
        )
    if process in (_first_process, getattr(_checked, "process", None)):
        return
    _checked.process = process
    if torch.get_num_threads() == 1:
        return
    torch.set_num_threads(1)
    if _warned_process != process:
        _warned_process = process
        _log.warning(
            "this process was forked, and torch's threads do not survive a fork: it computes with one thread; start"
            " processes with multiprocessing's 'spawn' to use more"
        )


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """A small array on a device. A copy from unpinned memory would wait for all queued work of a GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class HostCopy:
    """A tensor on its way to the host, behind the work that is queued on its device.

    Args:
        tensor: not changed afterwards; on the CPU it is not copied.
        spins: whether `wait` keeps the processor busy, which saves some 0.05 ms.
    """

    def __init__(self, tensor: Tensor, *, spins: bool = False) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.cpu()
            return
        self._host = torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event(blocking=not spins)
        self._event.record()

    @property
    def is_here(self) -> bool:
        """Whether `wait` returns at once."""
        return self._event is None or self._event.query()

    def wait(self) -> Tensor:
        """The tensor on the host."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


def usable_device(device: torch.device | str | None) -> torch.device:
    """The device asked for, or by default a GPU if there is one, else the CPU.

    Raises:
        ConfigError: torch does not know the device, or this machine does not have it.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        usable = torch.device(device)
        torch.empty(0, device=usable)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(device)!r} cannot be used ({reason}); give cpu, cuda or cuda:1") from error
    return usable


def usable_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or by default float32 on the CPU and bfloat16 elsewhere.

    float16 is refused, because features of the vision tower can exceed its range.

    Raises:
        ConfigError: the dtype is neither float32 nor bfloat16.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    chosen = named.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise ConfigError(f"dtype is {str(dtype)!r}; choose {' or '.join(named)}")
    return chosen


def fits_on_device(num_bytes: int, device: torch.device) -> bool:
    """Whether features, or keys and values, of this size may be put beside the model on its device."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    # The driver counts what PyTorch keeps for reuse as taken, but PyTorch can use it.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return num_bytes < MAX_SHARE_OF_FREE_MEMORY * free


def total_memory_bytes(device: torch.device | str) -> int:
    """Memory of a GPU, or of this machine."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
