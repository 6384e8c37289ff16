"""Writing MDS shards in MB/s, and reading rows a second; beside mosaicml-streaming if it is there.

    python benchmarks/mds.py --folder /tmp/mds-bench

For both in one table run it with the Python of an environment that `tests/data/mds/check_streaming.py` has made. A
figure is the best of three; files are in the page cache. Reading decodes whole rows; "bytes" is `raw`, without
decoding.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hourllava.data.mds.reader import MdsDataset
from hourllava.data.mds.writer import ShardWriter
from hourllava.processes import usable_cores

REPEATS = 3
# columns, rows, reads timed
SETS: dict[str, tuple[dict[str, str], int, int]] = {
    "video records": ({"video": "str", "text": "json"}, 60_000, 20_000),
    "images (JPEG, 336x336)": ({"image": "jpeg", "text": "json"}, 2_000, 500),
    "features [8, 64, 1152] fp16": ({"feature": "ndarray:float16:8,64,1152", "text": "json"}, 300, 500),
}


def make_rows(columns: dict[str, str], num_rows: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.effect_noise((336, 336), 60).convert("RGB").save(file, "JPEG", quality=85)
    turns = [
        {"from": "human", "value": "<image>\nWhat happens here? " * 10},
        {"from": "gpt", "value": "A party. " * 30},
    ]
    values = {
        "video": "features/source/0001.safetensors",
        "image": file.getvalue(),
        "feature": rng.normal(size=(8, 64, 1152)).astype(np.float16),
    }
    return [
        {name: values[name] for name in columns if name != "text"} | {"text": {"id": k, "conversations": turns}}
        for k in range(num_rows)
    ]


def best_seconds(action: Callable[[], None], prepare: Callable[[], None] = lambda: None) -> float:
    seconds = []
    for _ in range(REPEATS):
        prepare()
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def measure(
    name: str, folder: Path, write: Callable[[], None], read: Callable[[int], Any], num_rows: int, num_reads: int
) -> str:
    write_seconds = best_seconds(write, lambda: shutil.rmtree(folder, ignore_errors=True))
    megabytes = sum(path.stat().st_size for path in folder.glob("*.mds")) / 1e6
    in_order = [k % num_rows for k in range(num_reads)]
    at_random = np.random.default_rng(0).integers(0, num_rows, num_reads).tolist()
    rates = [num_reads / best_seconds(lambda order=order: [read(k) for k in order]) for order in (in_order, at_random)]
    return f"| {name} | {megabytes / write_seconds:,.0f} | {rates[0]:,.0f} | {rates[1]:,.0f} |"


def ours(folder: Path, columns: dict[str, str], rows: list[dict[str, Any]], num_reads: int, *, raw: bool) -> str:
    def write() -> None:
        with ShardWriter(folder, columns) as writer:
            for row in rows:
                writer.write(row)

    opened: list[MdsDataset] = []

    def read(index: int) -> Any:
        if not opened:
            opened.append(MdsDataset(folder))
        return opened[0].raw(index, columns) if raw else opened[0][index]

    return measure("hourllava, bytes" if raw else "hourllava", folder, write, read, len(rows), num_reads)


def theirs(folder: Path, columns: dict[str, str], rows: list[dict[str, Any]], num_reads: int) -> str:
    from streaming import MDSWriter, StreamingDataset

    def write() -> None:
        with MDSWriter(out=str(folder), columns=columns) as writer:
            for row in rows:
                writer.write(row)

    opened: list[Any] = []

    def read(index: int) -> Any:
        if not opened:
            opened.append(StreamingDataset(local=str(folder), batch_size=1))
        row = opened[0][index]
        if "image" in row:  # theirs is lazy, ours has loaded the pixels
            row["image"].load()
        return row

    return measure("mosaicml-streaming", folder, write, read, len(rows), num_reads)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    beside = importlib.util.find_spec("streaming") is not None
    if beside:
        os.environ["PYTHONWARNINGS"] = "ignore"
        define_torchvision_operators()
    print(f"load {os.getloadavg()[0]:.1f} on {usable_cores()} cores")
    for name, (columns, num_rows, num_reads) in SETS.items():
        rows = make_rows(columns, num_rows)
        print(f"\n{name}, {num_rows} rows\n\n| | write MB/s | rows/s in order | rows/s at random |\n|---|---|---|---|")
        print(ours(options.folder / "ours", columns, rows, num_reads, raw=False))
        print(ours(options.folder / "ours", columns, rows, num_reads, raw=True))
        if beside:
            print(theirs(options.folder / "theirs", columns, rows, num_reads))
    shutil.rmtree(options.folder)


def define_torchvision_operators() -> None:
    """As in `tests/data/mds/check_streaming.py`: it imports torchvision, whose usual build fails beside a CPU torch."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "data"))
    import check_streaming

    check_streaming.define_torchvision_operators()


if __name__ == "__main__":
    main()
