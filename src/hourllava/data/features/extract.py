"""`hourllava data features`: the vision tower's features of thousands of videos, computed once and kept.

Each device has one process. Its threads, each with a decoding process of its own (`hourllava.video`), feed the tower,
and one batch may hold frames of several videos. A video's file appears whole by a rename. A run that is started again
keeps files that are whole and belong to the same video, settings and tower, and makes all others. `--shard k/N` gives
each of N machines every N-th video. A video that cannot be read is a line in the ledger. An output folder that cannot
be written, or a device that fails, ends the run with one line.
"""

import json
import multiprocessing
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from tqdm import tqdm

from hourllava.cluster import WorkerLostError, cluster_devices
from hourllava.data.features.files import SETTINGS_NAME, FeatureSettings, Form, Storage, check_folder
from hourllava.data.features.items import (
    MAX_ATTEMPTS,
    Item,
    find_items,
    hold_shard,
    note_attempts,
    num_attempts,
    refusal,
    remove_unfinished,
)
from hourllava.data.features.ray import run_on_ray
from hourllava.data.features.tower import load_tower
from hourllava.data.features.worker import Finished, WorkerSettings, extract
from hourllava.errors import ConfigError, DataError, HourLlavaError, PartlyDoneError
from hourllava.files import remove_leftovers, replacing
from hourllava.locks import lock_folder
from hourllava.model.devices import usable_device, usable_dtype
from hourllava.parts import parse_part
from hourllava.processes import end_with_parent, usable_cores

Engine = Literal["local", "ray"]
Execute = Callable[[list[Item], list[WorkerSettings], Callable[[Finished], None]], None]
"""Encodes the videos with these workers, and calls the function with each result."""

BATCH_FRAMES = {"cuda": 128, "cpu": 16}
MAX_DECODERS = 32
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class FeatureReport:
    """The result of a run.

    Attributes:
        num_made, num_kept: videos encoded now, and found done.
        num_frames: encoded now.
        seconds: from the first video to the last.
        int8_error_share: the largest error of a file that was made now; None without int8.
        failures: (video, reason), sorted.
        ledger: the file that holds the failures.
    """

    num_made: int
    num_kept: int
    num_frames: int
    seconds: float
    int8_error_share: float | None
    failures: tuple[tuple[str, str], ...]
    ledger: Path

    def lines(self) -> list[str]:
        """The report in words."""
        rate = self.num_frames / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.num_made} videos made ({self.num_frames} frames, {rate:.1f} frames/s), {self.num_kept} kept, "
            f"{len(self.failures)} failed"
        ]
        if self.int8_error_share is not None:
            lines.append(f"int8 changed the features by {100 * self.int8_error_share:.2f} % at most (RMS of a video)")
        if self.failures:
            lines.append(f"reasons: {self.ledger}")
        return lines


def parse_devices(text: str | None) -> list[torch.device]:
    """Devices of `"cuda:0,cuda:1"`; by default all GPUs, or the CPU.

    Raises:
        ConfigError: this machine does not have one of them.
    """
    if text is None:
        return [torch.device("cuda", k) for k in range(torch.cuda.device_count())] or [torch.device("cpu")]
    return [usable_device(name.strip()) for name in text.split(",")]


def make_features(
    sources: Sequence[Path],
    out: Path,
    *,
    model: str,
    fps: float = 1.0,
    shard: tuple[int, int] = (0, 1),
    devices: Sequence[torch.device] = (),
    storage: Storage = "bfloat16",
    form: Form = "memory",
    decoders: int | None = None,
    batch_frames: int | None = None,
    names: Sequence[str] | None = None,
    engine: Engine = "local",
    progress: bool = True,
) -> FeatureReport:
    """Extract the features of videos.

    Args:
        sources: video files, and folders that are searched.
        out: folder for the features; made if need be.
        model: `"nano"`, a folder of any layout, or a name on the hub.
        fps: frames a second of the memory form.
        shard: (k, N): only every N-th video, from video k on, in the order of their names.
        devices: one process each; all GPUs or the CPU if empty.
        storage: of the features in memory files.
        form: memory files, or the release's `.pt`.
        decoders: decoding processes for each device; by default the devices share all cores.
        batch_frames: of the tower; by default 128 on a GPU, 16 on the CPU. Another number may change last bits.
        names: only the videos at these paths below the source folder.
        engine: use the devices of this machine, or all devices of a Ray cluster.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: an option outside what is allowed.
        CheckpointError: no such checkpoint.
        DataError: the folder has other settings or cannot be written, names collide, or a device failed.
    """
    _check_options(fps, storage, form, decoders)
    devices, cores, execute = _choose_engine(engine, devices)
    # The tower's identity is needed before any video is looked at, and cheapest on the CPU.
    identity = load_tower(model, torch.device("cpu"), torch.bfloat16, 1).identity
    settings = FeatureSettings(
        form=form, storage=storage, fps=fps, encoder_digest=identity.digest,
        feature_width=identity.feature_width, grid=identity.grid,
    )  # fmt: skip
    items = find_items(sources, out, settings.suffix, names)[shard[0] :: shard[1]]
    workers = [
        WorkerSettings(
            model=model, device=str(device), dtype=str(usable_dtype(None, device)),
            batch_frames=batch_frames or BATCH_FRAMES.get(device.type, 16),
            decoders=decoders or min(MAX_DECODERS, cores), settings=settings,
        )
        for device in devices
    ]  # fmt: skip
    ledger = out / f"failures-{shard[0]}-of-{shard[1]}.jsonl"
    with _held_folder(out, settings, shard, [ledger, *(item.out for item in items)]):
        return _run(items, workers, execute, ledger, progress)


def _check_options(fps: float, storage: Storage, form: Form, decoders: int | None) -> None:
    if not 0 < fps <= 1000:
        raise ConfigError(f"fps is {fps}, it must be above 0 and at most 1000")
    if form == "released" and storage != "bfloat16":
        raise ConfigError("released files hold bfloat16; int8 needs the memory form")
    if decoders is not None and not 1 <= decoders <= MAX_DECODERS:
        raise ConfigError(f"decoders is {decoders}; use 1 to {MAX_DECODERS}")


def _choose_engine(engine: Engine, devices: Sequence[torch.device]) -> tuple[Sequence[torch.device], int, Execute]:
    """The devices, the cores for each of them, and what runs the workers."""
    if engine == "ray":
        if devices:
            raise ConfigError("--devices is for this machine; --engine ray takes all of its cluster")
        return *cluster_devices(), run_on_ray
    devices = devices or parse_devices(None)
    return devices, max(1, usable_cores() // len(devices)), _run_here


@contextmanager
def _held_folder(
    out: Path, settings: FeatureSettings, shard: tuple[int, int], places: Sequence[Path]
) -> Iterator[None]:
    """Hold a shard of a folder that has these settings, without what killed runs left of these files."""
    with ExitStack() as held:
        try:
            out.mkdir(parents=True, exist_ok=True)
            with lock_folder(out):
                remove_leftovers(out, (SETTINGS_NAME,))
                check_folder(out, settings)
            held.enter_context(hold_shard(out, shard))
            remove_unfinished(places)
        except OSError as error:
            raise DataError(f"{out} cannot be written ({error.strerror}); choose a folder you may write to") from error
        yield


def _run(
    items: list[Item], workers: list[WorkerSettings], execute: Execute, ledger: Path, progress: bool
) -> FeatureReport:
    counts: Counter[str] = Counter()
    failures: list[tuple[str, str]] = []
    worst_error: float | None = None
    started = time.monotonic()
    with tqdm(total=len(items), unit="video", desc="features", disable=not progress) as bar:

        def finished(result: Finished) -> None:
            nonlocal worst_error
            if result.reason is not None:
                failures.append((result.video, result.reason))
                bar.write(f"failed: {result.reason}", file=sys.stderr)
            else:
                counts["kept" if result.kept else "made"] += 1
                counts["frames"] += result.num_frames
                if result.int8_error_share is not None:
                    worst_error = max(worst_error or 0.0, result.int8_error_share)
            bar.set_postfix_str(f"{counts['frames'] / (time.monotonic() - started):.1f} frames/s", refresh=False)
            bar.update()

        attempts = {item: num_attempts(item) for item in items}
        for item in items:
            if attempts[item] >= MAX_ATTEMPTS:
                finished(Finished(str(item.video), reason=refusal(item)))
        try:
            if first := [item for item in items if not attempts[item]]:
                execute(first, workers, finished)
            for item in items:
                if 0 < attempts[item] < MAX_ATTEMPTS:  # alone: if the run is killed again, it was this one
                    execute([item], workers[:1], finished)
        except WorkerLostError:
            raise
        except (HourLlavaError, KeyboardInterrupt, SystemExit):  # the run ends, but no video has killed it
            for item in items:
                if num_attempts(item) > attempts[item]:
                    note_attempts(item, attempts[item])
            raise
    failures.sort()
    try:
        with replacing(ledger) as temporary:
            lines = (json.dumps({"video": video, "reason": reason}) + "\n" for video, reason in failures)
            temporary.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{ledger} cannot be written ({error.strerror}); free space there") from error
    seconds = time.monotonic() - started
    return FeatureReport(
        counts["made"], counts["kept"], counts["frames"], seconds, worst_error, tuple(failures), ledger
    )


def _run_here(items: list[Item], workers: list[WorkerSettings], finished: Callable[[Finished], None]) -> None:
    if len(workers) > 1:
        _run_processes(items, workers, finished)
        return
    waiting, lock = iter(items), threading.Lock()

    def next_item() -> tuple[Path, Path] | None:
        with lock:
            item = next(waiting, None)
        return None if item is None else (item.video, item.out)

    extract(workers[0], next_item, finished)


def _run_processes(items: list[Item], workers: list[WorkerSettings], finished: Callable[[Finished], None]) -> None:
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for item in items:
        todo.put((item.video, item.out))
    for _ in range(sum(worker.decoders for worker in workers)):
        todo.put(None)  # each decoding thread takes one as its end
    processes = [context.Process(target=_work, args=(worker, todo, done), daemon=True) for worker in workers]
    for process in processes:
        process.start()
    remaining = len(items)
    try:
        while remaining:
            try:
                result = done.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                for worker, process in zip(workers, processes):
                    if process.exitcode not in (None, 0):
                        raise WorkerLostError(
                            f"the process of {worker.device} ended (exit code {process.exitcode}); run again to go on"
                        ) from None
                continue
            if isinstance(result, HourLlavaError):
                raise result
            finished(result)
            remaining -= 1
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        todo.cancel_join_thread()


def _work(worker: WorkerSettings, todo: Any, done: Any) -> None:
    """A device's process. Ends when its parent does, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent()
    try:
        extract(worker, todo.get, done.put)
    except HourLlavaError as error:
        done.put(error)


def run_features(
    videos: Sequence[Path], model: str, out: Path, fps: float, shard: str, devices: str | None, dtype: str, form: str,
    decoders: int | None, engine: str,
) -> Iterator[str]:  # fmt: skip
    """`hourllava data features`: check the options, run, and report.

    Raises:
        PartlyDoneError: after the last line, if some videos failed.
        DataError: after the last line, if all failed; or as `make_features`.
    """
    options = (("dtype", dtype, Storage), ("format", form, Form), ("engine", engine, Engine))
    for name, value, kind in options:
        allowed = get_args(kind)
        if value not in allowed:
            raise ConfigError(f"--{name} is {value!r}; use one of: {', '.join(allowed)}")
    report = make_features(
        videos, out, model=model, fps=fps, shard=parse_part(shard, "--shard"),
        devices=parse_devices(devices) if devices else (), storage=cast(Storage, dtype), form=cast(Form, form),
        decoders=decoders, engine=cast(Engine, engine),
    )  # fmt: skip
    yield from report.lines()
    if report.failures:
        num_done = report.num_made + report.num_kept
        message = f"{len(report.failures)} of {len(report.failures) + num_done} videos failed; see {report.ledger}"
        raise (PartlyDoneError if num_done else DataError)(message)
