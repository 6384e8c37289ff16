"""Throughput and losses of a run, collected over all processes between two log lines.

Model FLOP utilisation is the share of the GPU's dense bf16 rate (from its data sheet) that useful operations reach.
Useful operations are those of `hourllava.data.batches.cost`, without recomputation.
"""

import time

import torch
import torch.distributed as dist
from torch import Tensor

from hourllava.training.corpus import MODALITIES

PEAK_FLOPS_PER_SECOND = {
    "H100": 989e12,
    "H200": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "MI300X": 1307e12,
}
"""Dense bf16 rate, by a part of the device's name."""


class Meter:
    """Counters of one process. `read` adds the counters of all processes and resets them.

    Args:
        device: the device of the training.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._losses = torch.zeros(len(MODALITIES), dtype=torch.float64, device=device)
        self._targets = torch.zeros_like(self._losses)
        self._evidence = torch.zeros(2, dtype=torch.float64, device=device)  # sum of shares, their number
        self.start()

    def start(self) -> None:
        """Reset the counters and the clock."""
        self._losses.zero_()
        self._targets.zero_()
        self._evidence.zero_()
        self._samples = self._tokens = self._views = 0
        self._flops = self._waited_seconds = 0.0
        self._start = time.perf_counter()

    def waited(self, seconds: float) -> None:
        """Count time spent waiting for data."""
        self._waited_seconds += seconds

    def skip(self, seconds: float) -> None:
        """Leave out time spent on something other than training."""
        self._start += seconds

    def trained(self, samples: int, tokens: int, views: int, flops: float) -> None:
        """Count a micro-batch."""
        self._samples += samples
        self._tokens += tokens
        self._views += views
        self._flops += flops

    def lost(self, losses_N: Tensor, is_target_N: Tensor, modality_N: Tensor) -> None:
        """Count the loss of each position of a micro-batch, by its sample's modality."""
        self._losses.index_add_(0, modality_N, losses_N.double())
        self._targets.index_add_(0, modality_N, is_target_N.double())

    def looked(self, shares_R: Tensor) -> None:
        """Count the share of attention on the evidence spans, for each sample of a micro-batch."""
        self._evidence[0] += shares_R.double().sum()
        self._evidence[1] += len(shares_R)

    def read(self) -> dict[str, float]:
        """Figures of all processes together since the last reading; resets the counters."""
        seconds = time.perf_counter() - self._start
        counts = torch.tensor(
            [self._samples, self._tokens, self._views, self._flops, self._waited_seconds, 1.0], dtype=torch.float64
        )
        totals = torch.cat([self._losses, self._targets, self._evidence, counts.to(self.device)])
        if dist.is_initialized():
            dist.all_reduce(totals)
        losses, targets, (shares, grounded), (samples, tokens, views, flops, waited_seconds, processes) = (
            part.tolist() for part in totals.split([len(MODALITIES), len(MODALITIES), 2, len(counts)])
        )
        figures = {f"loss_{name}": losses[k] / targets[k] for k, name in enumerate(MODALITIES) if targets[k]}
        if grounded:
            figures["evidence_share"] = shares / grounded
        figures |= {
            "samples_per_second": samples / seconds,
            "tokens_per_second": tokens / seconds,
            "frames_per_second": views / seconds,
            "data_wait_share": waited_seconds / processes / seconds,
        }
        if self.device.type == "cuda":
            figures["peak_memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
            peak = peak_flops_per_second(torch.cuda.get_device_name(self.device))
            if peak:
                figures["flop_utilisation"] = flops / seconds / processes / peak
        self.start()
        return figures


def peak_flops_per_second(device_name: str) -> float | None:
    """Dense bf16 operations per second of a GPU; None if it is not in the table."""
    return next((rate for name, rate in PEAK_FLOPS_PER_SECOND.items() if name in device_name), None)
