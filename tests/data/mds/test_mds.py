"""MDS shards against those of the genuine library, and against anything that can be wrong with them."""

import contextlib
import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from conftest import examples
from data.shard_rows import COLUMNS, contents, video_rows, write
from hourllava.data.mds.encodings import find_coder, split_jpegs
from hourllava.data.mds.format import index_text, parse_index
from hourllava.data.mds.merge import merge_indexes
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.mds.writer import ShardWriter
from hourllava.errors import ConfigError, DataError, PartlyDoneError

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_FOLDERS = ("video/0", "video/1", "single_image", "multi_image", "typed")


def change_index(folder, **changes):
    path = folder / "index.json"
    index = json.loads(path.read_text())
    for key, value in changes.items():
        index["shards"][0][key] = value
    path.write_text(json.dumps(index))


def test_golden_video_rows():
    dataset = MdsDataset(GOLDEN / "video")
    assert len(dataset) == 40
    for k, row in enumerate(dataset):
        assert row["video"] == f"features/source/{k:04d}.safetensors"
        assert row["text"]["id"] == f"v{k}"
        assert row["text"]["conversations"][0]["value"] == f"<image>\nquestion {k}? naïve café ✓"


def test_golden_typed_rows():
    rows = list(MdsDataset(GOLDEN / "typed"))
    assert [row["i"] for row in rows] == [0, 1, 2]
    assert [row["f"] for row in rows] == pytest.approx([0, 1 / 3, 2 / 3])
    for k, row in enumerate(rows):
        assert row["a"].dtype == np.float16
        assert row["a"].tolist() == list(range(k + 2))
        assert row["b"] == bytes([k]) * k


def test_golden_images():
    single, several = MdsDataset(GOLDEN / "single_image"), MdsDataset(GOLDEN / "multi_image")
    assert {row["image"].size for row in single} == {(40, 30)}
    assert [len(row["image"]) for row in several] == [1, 2, 1]
    assert all(isinstance(image, Image.Image) for row in several for image in row["image"])


@pytest.mark.parametrize("name", GOLDEN_FOLDERS)
def test_golden_folders_written_back_are_the_same_bytes(name, tmp_path):
    source = GOLDEN / name
    (shard, *_) = parse_index((source / "index.json").read_bytes(), "index")
    columns = dict(zip(shard.column_names, shard.column_encodings))
    dataset = MdsDataset(source)
    with ShardWriter(tmp_path / "copy", columns, size_limit_bytes=shard.size_limit) as writer:
        for k in range(len(dataset)):
            row, raw = dataset[k], dataset.raw(k, columns)
            row |= {name: raw[name] for name in columns if columns[name] == "jpeg"}  # a JPEG does not survive decoding
            row |= {name: split_jpegs(raw[name]) for name in columns if columns[name] == "list[jpeg]"}
            writer.write(row)
    assert contents(tmp_path / "copy") == contents(source)


def test_golden_merge_is_the_same_bytes(tmp_path):
    shutil.copytree(GOLDEN / "video", tmp_path / "video")
    (tmp_path / "video" / "index.json").unlink()
    assert merge_indexes(tmp_path / "video") == 40
    assert contents(tmp_path / "video") == contents(GOLDEN / "video")


def test_parsed_index_is_written_the_same():
    text = (GOLDEN / "video" / "index.json").read_text()
    assert index_text(parse_index(text, "index"), merged=True) == text


NUMBERS = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    **{f"uint{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32)},
    **{f"int{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32)},
    **{f"float{bits}": st.floats(width=bits, allow_nan=False) for bits in (16, 32, 64)},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DTYPES = ("uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64", "float64")
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda name: hnp.arrays(
        name, hnp.array_shapes(max_dims=5, max_side=4), elements={"allow_nan": False} if "f" in name else None
    )
)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                **NUMBERS,
                "str": st.text(st.characters(exclude_categories=["Cs"])),
                "bytes": st.binary(),
                "json": JSON,
                "ndarray": ARRAYS,
            }
        ),
        max_size=6,
    ),
    st.integers(1, 2000),
)
def test_rows_come_back(tmp_path_factory, rows, size_limit_bytes):
    folder = tmp_path_factory.mktemp("rows")
    columns = {name: name for name in (*NUMBERS, "str", "bytes", "json", "ndarray")}
    write(folder, rows, columns, size_limit_bytes=size_limit_bytes, hashes=["md5", "sha1"])
    dataset = MdsDataset(folder)
    dataset.verify()
    assert len(dataset) == len(rows)
    for row, got in zip(rows, dataset):
        array, expected = got.pop("ndarray"), row["ndarray"]
        assert got == {name: value for name, value in row.items() if name != "ndarray"}
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
        assert array.flags.writeable


@pytest.mark.parametrize("encoding", ["ndarray", "ndarray:int32", "ndarray:int32:2,300"])
def test_arrays_with_fixed_dtype_or_shape(encoding):
    array = np.arange(600, dtype=np.int32).reshape(2, 300)
    coder = find_coder(encoding)
    data = coder.encode(array.astype(">i4") if encoding == "ndarray" else array)
    assert len(data) == 2400 + {"ndarray": 6, "ndarray:int32": 5, "ndarray:int32:2,300": 0}[encoding]
    assert coder.size_bytes == (2400 if encoding.count(":") == 2 else None)
    np.testing.assert_array_equal(coder.decode(data), array)


@pytest.mark.parametrize(
    "encoding",
    ["pkl", "png", "str_int", "", "ndarray:complex64", "ndarray:int8:0", "ndarray:int8:2,", "ndarray:int8:2:3"],
)
def test_other_encodings_are_refused(encoding, tmp_path):
    with pytest.raises(DataError, match="allowed") as caught:
        ShardWriter(tmp_path, {"a": encoding})
    assert "\n" not in str(caught.value)
    shutil.copytree(GOLDEN / "typed", tmp_path / "typed")
    change_index(tmp_path / "typed", column_encodings=[encoding, "bytes", "float32", "int"])
    with pytest.raises(DataError, match="allowed"):
        MdsDataset(tmp_path / "typed")


@pytest.mark.parametrize(
    ("encoding", "value"),
    [
        ("str", b"a"), ("str", "\ud800"), ("bytes", "a"), ("int", "a"), ("int", 2**63), ("int", 1.5), ("uint8", -1),
        ("float32", 1e300), ("float16", None), ("json", {1, 2}), ("jpeg", b"GIF89a"), ("jpeg", 3), ("list[jpeg]", b""),
        ("ndarray", [1]), ("ndarray", np.array(3)), ("ndarray", np.zeros((2, 0))), ("ndarray", np.array([True])),
        ("ndarray:int8", np.zeros(3)), ("ndarray:int8:3", np.zeros(4, np.int8)),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused(encoding, value, tmp_path):
    with ShardWriter(tmp_path, {"a": encoding}) as writer:
        with pytest.raises(DataError, match="'a'"):
            writer.write({"a": value})
        assert writer.position == writer.num_samples == 0


def test_rows_must_have_the_columns(tmp_path):
    with ShardWriter(tmp_path, COLUMNS) as writer:
        for row in ({"video": "a"}, {"video": "a", "text": 1, "more": 2}):
            with pytest.raises(DataError, match="needed: text, video"):
                writer.write(row)


@pytest.mark.parametrize("options", [{"size_limit_bytes": 0}, {"size_limit_bytes": 2**32}, {"columns": {}}])
def test_settings_outside_what_is_allowed(options, tmp_path):
    with pytest.raises(ConfigError, match="allowed"):
        ShardWriter(tmp_path, **{"columns": COLUMNS, **options})


@pytest.mark.parametrize("hashes", [["sha1", "md5"], ["md5", "md5"], ["crc7"]])
def test_hashes_that_cannot_be(hashes, tmp_path):
    with pytest.raises(DataError):
        ShardWriter(tmp_path, COLUMNS, hashes=hashes)


def test_some_columns_of_some_rows():
    dataset = MdsDataset([GOLDEN / "video", GOLDEN / "single_image" / "index.json"])
    assert len(dataset) == 44
    assert dataset.row(3, columns=["video"]) == {"video": "features/source/0003.safetensors"}
    assert dataset.row(-1, columns=["text"]).keys() == {"text"}
    assert dataset[-44]["text"]["id"] == "v0"
    for index in (44, -45):
        with pytest.raises(IndexError, match="of 44"):
            dataset[index]
    with pytest.raises(DataError, match="it has: image, text"):
        dataset.row(43, columns=["video"])


def test_an_empty_folder_of_shards(tmp_path):
    dataset = MdsDataset(write(tmp_path, []))
    assert len(dataset) == 0
    assert list(dataset) == []


def test_pickling_takes_no_open_shard_along():
    dataset = MdsDataset(GOLDEN / "video")
    first = dataset[0]
    data = pickle.dumps(dataset)
    assert len(data) < 4000
    assert pickle.loads(data)[0] == first


def test_only_some_shards_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("hourllava.data.mds.reader._OPEN_SHARDS", 2)
    dataset = MdsDataset(write(tmp_path, video_rows(20), size_limit_bytes=1))
    assert [row["text"]["id"] for row in dataset] == list(range(20))
    assert dataset._open.cache_info().currsize == 2


def test_lengths_go_along(tmp_path):
    for name, count in (("0", 3), ("10", 2), ("2", 4)):
        with ShardWriter(tmp_path / name, COLUMNS, lengths=True, size_limit_bytes=300) as writer:
            for k, row in enumerate(video_rows(count)):
                writer.write(row, lengths=(int(name), k, 7))
    merge_indexes(tmp_path)
    lengths = MdsDataset(tmp_path).lengths()
    assert lengths.dtype == np.int32
    assert lengths[:, 0].tolist() == [0, 0, 0, 2, 2, 2, 2, 10, 10]  # 2 before 10
    assert MdsDataset([tmp_path / "10", tmp_path / "0"]).lengths()[:, 1].tolist() == [0, 1, 0, 1, 2]


def test_lengths_that_are_not_there_or_not_right(tmp_path):
    write(tmp_path / "a", video_rows(3), lengths=True)
    write(tmp_path / "b", video_rows(3))
    merge_indexes(tmp_path)
    with pytest.raises(DataError, match=r"lengths\.npy cannot be read"):
        MdsDataset(tmp_path).lengths()
    np.save(tmp_path / "b" / "lengths.npy", np.zeros((2, 3), np.int32))
    with pytest.raises(DataError, match="merge again"):
        MdsDataset(tmp_path / "b").lengths()
    with pytest.raises(DataError, match="merge again"):
        merge_indexes(tmp_path)
    (tmp_path / "b" / "lengths.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="cannot be read"):
        merge_indexes(tmp_path)


def test_an_index_over_parts_elsewhere(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "parts" / name / "0", video_rows(10), size_limit_bytes=450, lengths=True)
        merge_indexes(tmp_path / "parts" / name)
    a, b = tmp_path / "parts" / "a", tmp_path / "parts" / "b"
    out = tmp_path / "mix" / "0"
    assert merge_indexes(out, [a, (b, "first")]) + merge_indexes(tmp_path / "mix" / "1", [(b, "second")]) == 20
    assert {path.name for path in out.iterdir()} == {"index.json", "lengths.npy"}
    names = [shard["raw_data"]["basename"] for shard in json.loads((out / "index.json").read_text())["shards"]]
    assert names[0] == "../../parts/a/0/shard.00000.mds"
    halves = [MdsDataset(out), MdsDataset(tmp_path / "mix" / "1")]
    assert [len(half.lengths()) for half in halves] == [len(half) for half in halves]
    assert [row["text"]["id"] for half in halves for row in half] == [*range(10), *range(10)]
    assert abs(len(halves[0]) - 15) <= 2
    assert pickle.loads(pickle.dumps(halves[0]))[0]["text"]["id"] == 0
    shutil.move(tmp_path / "parts", tmp_path / "gone")
    with pytest.raises(DataError, match=r"shard\.00000\.mds is named by the index but cannot be read"):
        MdsDataset(out)[0]


def test_merging_checks_that_shards_are_there_and_whole(tmp_path):
    with pytest.raises(DataError, match="no sub-folder"):
        merge_indexes(tmp_path)
    write(tmp_path / "0", video_rows(9))
    shard = tmp_path / "0" / "shard.00000.mds"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match="the index says"):
        merge_indexes(tmp_path)
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        merge_indexes(tmp_path)
    assert not (tmp_path / "index.json").exists()


def test_a_shard_cut_short_a_wrong_hash_an_absent_shard(tmp_path):
    folder = write(tmp_path / "a", video_rows(30), hashes=["sha1"], size_limit_bytes=900)
    shard = folder / "shard.00001.mds"
    good = shard.read_bytes()
    for bad, message in ((good[:-1], "the index says"), (good[:-3] + b"abc", "has sha1")):
        shard.write_bytes(bad)
        with pytest.raises(PartlyDoneError, match=message) as caught:
            MdsDataset(folder).verify()
        assert "\n" not in str(caught.value)
        assert "1 of" in str(caught.value)
    shard.write_bytes(good[:-1])
    with pytest.raises(DataError, match="write it again"):
        list(MdsDataset(folder))
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        list(MdsDataset(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "only version 2"), ({"format": "json"}, "format"), ({"samples": -1}, "samples"),
        ({"samples": 5}, "the index says 5"), ({"column_sizes": [None, 4]}, "takes None"),
        ({"column_names": ["a"]}, "one length"), ({"column_names": ["a", "a"]}, "without duplicates"),
        ({"raw_data": None}, "raw_data"), ({"compression": "zstd"}, "zip_data"),
        ({"raw_data": {"basename": "../x\0", "bytes": 3, "hashes": {}}}, "cannot be read"),
    ],
)  # fmt: skip
def test_an_index_that_is_wrong(changes, message, tmp_path):
    write(tmp_path, video_rows(3))
    change_index(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        MdsDataset(tmp_path)[0]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"version": 2}', '{"version": 1, "shards": []}', '{"version": 2, "shards": [3]}']
)
def test_files_that_are_no_index(text, tmp_path):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DataError) as caught:
        MdsDataset(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        MdsDataset(tmp_path / "missing")


@examples(300)
@given(st.data())
def test_changed_bytes_raise_nothing_but_data_errors(tmp_path_factory, data):
    name = data.draw(st.sampled_from(("video/0", "single_image", "multi_image", "typed")))
    folder = tmp_path_factory.mktemp("changed") / "set"
    shutil.copytree(GOLDEN / name, folder)
    path = data.draw(st.sampled_from(sorted(folder.glob("shard*"))))
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # As often in the table and the sizes of columns as in the values.
        position = data.draw(st.integers(0, 400) | st.integers(0, len(damaged) - 1)) % len(damaged)
        damaged[position] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    dataset = MdsDataset(folder)
    for index in range(len(dataset)):
        with contextlib.suppress(DataError):
            dataset[index]


def test_a_damaged_table_of_samples(tmp_path):
    write(tmp_path, video_rows(3))
    shard = tmp_path / "shard.00000.mds"
    good = shard.read_bytes()
    for offset, value, message in ((0, 4, "holds 4 samples"), (4, 2, "damaged table"), (8, 2**31, "damaged table")):
        shard.write_bytes(good[:offset] + struct.pack("<I", value) + good[offset + 4 :])
        with pytest.raises(DataError, match=message):
            MdsDataset(tmp_path)[0]
    begin = struct.unpack_from("<I", good, 4)[0]
    shard.write_bytes(good[:begin] + struct.pack("<I", 7) + good[begin + 4 :])
    with pytest.raises(DataError, match="row 0 is damaged"):
        MdsDataset(tmp_path)[0]
    assert MdsDataset(tmp_path)[1]["video"] == "v/1.mp4"
