"""The figures of a log as a readable line."""

import sys
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hourllava.data.batches.plan import BatchPlan
from hourllava.training.corpus import MODALITIES


class ConsoleCallback(TrainerCallback):
    """Prints logged figures, on the main process."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self._start = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember the time and the step at which training began, to estimate the time left."""
        self._start = (time.perf_counter(), state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print one line."""
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            start_seconds, start_step = self._start
            steps = max(state.global_step - start_step, 1)
            left = (time.perf_counter() - start_seconds) / steps * (state.max_steps - state.global_step)
            print(describe(logs, state.global_step, state.max_steps, left), file=sys.stderr, flush=True)
        elif "validation_loss" in logs:
            parts = " ".join(f"{name.removeprefix('validation_')} {value:.4f}" for name, value in logs.items())
            print(f"step {state.global_step}: validation {parts}", file=sys.stderr, flush=True)


def describe(logs: dict[str, float], step: int, max_steps: int, seconds_left: float) -> str:
    """The figures of a log as one line."""
    by_modality = ", ".join(f"{name} {logs[f'loss_{name}']:.3f}" for name in MODALITIES if f"loss_{name}" in logs)
    parts = [
        f"step {step}/{max_steps}",
        f"loss {logs['loss']:.4f} ({by_modality})",
        f"gradient {logs.get('grad_norm', 0.0):.2f}",
        f"rate {logs['learning_rate_share']:.0%}",
        f"{logs['samples_per_second']:.1f} samples/s",
        f"{logs['tokens_per_second']:,.0f} tokens/s",
        f"{logs['frames_per_second']:,.0f} frames/s",
        f"waits {logs['data_wait_share']:.0%}",
    ]
    if "evidence_share" in logs:
        parts.append(f"evidence {logs['evidence_share']:.1%}")
    if "flop_utilisation" in logs:
        parts.append(f"MFU {logs['flop_utilisation']:.0%}")
    if "peak_memory_gb" in logs:
        parts.append(f"{logs['peak_memory_gb']:.1f} GB")
    if logs.get("skipped_samples"):
        parts.append(f"{logs['skipped_samples']:.0f} samples skipped")
    parts.append(f"{_clock(seconds_left)} left")
    return " | ".join(parts)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds; hours may pass 24."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"
