"""Genuine mosaicml-streaming and litdata against our shards, row for row, every column encoding. Not part of CI.

    python tests/data/mds/check_streaming.py --folder /tmp/check-streaming

Makes an environment for each under --folder (kept and used again), since both want packages that we do not: mosaicml-
streaming pins transformers < 5 and numpy < 2.2, and both need torchvision. Writes shards with ours and reads them with
theirs, then the other way, with merged indexes, hashes and zstd.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = {
    "streaming": ["mosaicml-streaming==0.13.0"],
    "litdata": ["litdata==0.2.76"],
}
OURS = ["pydantic", "tqdm", "numpy", "pillow", "fsspec", "zstandard", "xxhash"]
COLUMNS = {
    "a_any": "ndarray", "a_dtype": "ndarray:float16", "a_shape": "ndarray:int32:2,3", "blob": "bytes", "flag": "uint8",
    "i": "int", "i16": "int16", "i32": "int32", "i64": "int64", "i8": "int8", "image": "jpeg", "images": "list[jpeg]",
    "name": "str", "text": "json", "u16": "uint16", "u32": "uint32", "u64": "uint64", "x16": "float16",
    "x32": "float32", "x64": "float64",
}  # fmt: skip
# litdata fails on a column that it has no reader for, and reads jpeg with torchvision only, which does not load here.
LITDATA_COLUMNS = {name: COLUMNS[name] for name in ("blob", "name", "text")}
NUM_ROWS = 50
FOLDERS = {"plain": {}, "hashes": {"hashes": ["sha1", "xxh64"]}}


def make_rows() -> list[dict]:
    """Rows of all encodings; the same in every process."""
    import io

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = []
    for k in range(NUM_ROWS):
        files = []
        for _ in range(3):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (8 + k, 9, 3), np.uint8)).save(file, "JPEG")
            files.append(file.getvalue())
        rows.append(
            {
                "a_any": rng.normal(size=(1 + k % 4, 300)).astype(("float32", "float64", "float16")[k % 3]),
                "a_dtype": rng.normal(size=1 + k).astype("float16"),
                "a_shape": rng.integers(-9, 9, (2, 3), np.int32),
                "blob": bytes(rng.integers(0, 255, k, np.uint8)),
                "flag": k, "i": -(7**k % 2**62), "i16": -k, "i32": -(k**3), "i64": -(2**40) - k, "i8": -k,
                "image": files[0], "images": files[: k % 4],
                "name": f"naïve ✓ {k}" * (k % 3), "text": {"id": k, "turns": ["é", None, 1.5, {"a": []}]},
                "u16": 65000 + k, "u32": 2**32 - 1 - k, "u64": 2**63 + k, "x16": k / 4, "x32": k / 3, "x64": k / 7,
            }
        )  # fmt: skip
    return rows


def same(got: object, expected: object, encoding: str) -> bool:
    """Whether a value read is the one written; images are compared by their pixels."""
    import io

    import numpy as np
    from PIL import Image

    if encoding == "list[jpeg]":
        return len(got) == len(expected) and all(same(a, b, "jpeg") for a, b in zip(got, expected))
    if encoding == "jpeg":
        image = got if isinstance(got, Image.Image) else Image.open(io.BytesIO(bytes(got)))
        return np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(expected))))
    if encoding.startswith("ndarray"):
        return got.dtype == expected.dtype and got.shape == expected.shape and np.array_equal(got, expected)
    if encoding.startswith("float"):
        return got == np.dtype(encoding).type(expected)
    return (
        type(got) in (type(expected), np.dtype(encoding).type if encoding[-1].isdigit() else None) and got == expected
    )


def compare(rows: object, where: str, columns: dict[str, str] = COLUMNS) -> None:
    expected = make_rows()
    got = list(rows)
    assert len(got) == len(expected), f"{where}: {len(got)} rows"
    for number, (a, b) in enumerate(zip(got, expected)):
        for name, encoding in columns.items():
            assert same(a[name], b[name], encoding), f"{where}: row {number}, {name}: {a[name]!r} != {b[name]!r}"
    print(f"{where}: {len(got)} rows of {len(columns)} columns are equal")


def write_ours(folder: Path) -> None:
    from hourllava.data.mds.merge import merge_indexes
    from hourllava.data.mds.writer import ShardWriter

    rows = make_rows()
    for name, options in FOLDERS.items():
        for worker in range(2):
            half = rows[worker * NUM_ROWS // 2 : (worker + 1) * NUM_ROWS // 2]
            with ShardWriter(
                folder / name / str(worker), COLUMNS, size_limit_bytes=40_000, lengths=True, **options
            ) as writer:
                for row in half:
                    writer.write(row, (1, 2, 3))
        merge_indexes(folder / name)
    for name in ("as it is", "adapted"):
        with ShardWriter(folder / "litdata" / name, LITDATA_COLUMNS, size_limit_bytes=40_000) as writer:
            for row in rows:
                writer.write({column: row[column] for column in LITDATA_COLUMNS})
    merge_indexes(folder / "elsewhere" / "0", [folder / "plain" / "0", folder / "hashes" / "1"])


def read_ours(folder: Path) -> None:
    from hourllava.data.mds.reader import MdsDataset

    for name in (*FOLDERS, "zstd"):
        dataset = MdsDataset(folder / name, cache_folder=folder / "cache")
        dataset.verify()
        compare(dataset, f"ours reads theirs, {name}")


def define_torchvision_operators() -> None:
    """Both import torchvision, whose usual build is for CUDA and fails beside a CPU torch: its names are enough."""
    import torch

    names = ["nms", "qnms", "roi_align", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"]
    library = torch.library.Library("torchvision", "DEF")
    for name in names + [f"_{name}_backward" for name in names]:
        library.define(f"{name}(Tensor x) -> Tensor")
    globals()["_library"] = library  # its definitions last as long as it does


def write_theirs(folder: Path) -> None:
    from streaming import MDSWriter
    from streaming.base.util import merge_index

    rows = make_rows()
    for name, options in {**FOLDERS, "zstd": {"compression": "zstd:7", "hashes": ["sha1"]}}.items():
        for worker in range(2):
            half = rows[worker * NUM_ROWS // 2 : (worker + 1) * NUM_ROWS // 2]
            with MDSWriter(
                out=str(folder / name / str(worker)), columns=COLUMNS, size_limit=40_000, **options
            ) as writer:
                for row in half:
                    # Their list[jpeg] takes images and encodes them again; bytes of a whole column are stored as given.
                    writer.write(row | {"images": _pack(row["images"])})
        merge_index(str(folder / name), keep_local=True)


def _pack(files: list[bytes]) -> bytes:
    import struct

    return struct.pack(f"<{2 + len(files)}I", 0, len(files), *map(len, files)) + b"".join(files)


def read_theirs(folder: Path) -> None:
    from streaming import StreamingDataset

    for name in (*FOLDERS, "elsewhere/0"):
        dataset = StreamingDataset(local=str(folder / name), shuffle=False, batch_size=1)
        compare((dataset[k] for k in range(len(dataset))), f"mosaicml-streaming reads ours, {name}")
    dataset = StreamingDataset(
        remote=str(folder / "hashes"), local=str(folder / "copied"), batch_size=1, validate_hash="xxh64"
    )
    compare((dataset[k] for k in range(len(dataset))), "mosaicml-streaming copies ours and checks xxh64")


def read_litdata(folder: Path) -> None:
    """litdata takes MDS folders only if every shard has `zip_data`: in a copy of the index, give it that."""
    import litdata

    try:
        list(litdata.StreamingDataset(str(folder / "as it is")))
    except (TypeError, KeyError) as error:
        print(f"litdata {litdata.__version__}, index as it is: refused, {type(error).__name__}: {error}")
    path = folder / "adapted" / "index.json"
    index = json.loads(path.read_text())
    for shard in index["shards"]:
        shard["zip_data"] = shard["raw_data"]
    path.write_text(json.dumps(index))
    dataset = litdata.StreamingDataset(str(path.parent))
    for name, encoding in LITDATA_COLUMNS.items():
        try:
            rows = [{name: dataset[k][name]} for k in range(len(dataset))]
            compare(rows, f"litdata reads ours, zip_data = raw_data, {name}", {name: encoding})
        except AssertionError as error:
            print(f"DIFFERS: {str(error)[:300]}")


def run(environment: Path, step: str, folder: Path) -> None:
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [environment / "bin" / "python", __file__, "--folder", folder, "--step", step], check=True, env=variables
    )


def make_environment(folder: Path, packages: list[str]) -> Path:
    ready = folder / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "pip", "install", "--quiet"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)  # first, or another build of it comes along
        subprocess.run([*pip, "torch==2.13.0", *packages, *OURS], check=True)
        ready.touch()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--step")
    options = parser.parse_args()
    if options.step:
        if options.step in ("write_theirs", "read_theirs", "read_litdata"):
            define_torchvision_operators()
        globals()[options.step](options.folder)
        return
    environments = {name: make_environment(options.folder / name, packages) for name, packages in PACKAGES.items()}
    work = options.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    for writer, reader in (("write_ours", "read_theirs"), ("write_theirs", "read_ours")):
        run(environments["streaming"], writer, work / writer)
        run(environments["streaming"], reader, work / writer)
    for name in FOLDERS:
        theirs = {path.relative_to(work / "write_theirs"): path for path in (work / "write_theirs" / name).rglob("*.*")}
        changed = [p for p, path in theirs.items() if path.read_bytes() != (work / "write_ours" / p).read_bytes()]
        print(f"{name}: of {len(theirs)} files that both wrote, {len(changed)} differ in a byte")
    run(environments["litdata"], "read_litdata", work / "write_ours" / "litdata")


if __name__ == "__main__":
    main()
