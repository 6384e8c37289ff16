"""Where an index may lead, and what it may promise: what it cannot be is refused before anything is opened or made."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from data.shard_rows import video_rows, write
from hourllava.data.batches.lengths import _load
from hourllava.data.mds.format import check_table, parse_index, parse_lengths
from hourllava.data.mds.merge import merge_indexes
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.mds.remote import join
from hourllava.errors import DataError


def rename(folder, basename, **changes):
    path = folder / "index.json"
    index = json.loads(path.read_text())
    index["shards"][0]["raw_data"] |= {"basename": basename, **changes}
    path.write_text(json.dumps(index))


def refused(folder, words):
    with pytest.raises(DataError, match=words) as caught:
        MdsDataset(folder)[0]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "a/../../b.mds", "x/..", "..", "../..", "", ".", "a\0b", "//host/a.mds"]
)
def test_names_that_lead_anywhere_are_refused(name, tmp_path):
    rename(write(tmp_path / "a", video_rows(2)), name)
    refused(tmp_path / "a", "index.json: shard 0, raw_data, basename")


def test_an_absolute_name_of_a_right_shard_is_refused(tmp_path):
    folder = write(tmp_path / "a", video_rows(2))
    rename(folder, str((folder / "shard.00000.mds").resolve()))
    refused(folder, "is needed")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_out_of_the_data_set_is_refused(what, tmp_path):
    folder, elsewhere = write(tmp_path / "a", video_rows(2)), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "shard.00000.mds").rename(elsewhere / "shard.00000.mds")
    if what == "file":
        (folder / "shard.00000.mds").symlink_to(elsewhere / "shard.00000.mds")
    else:
        (folder / "sub").symlink_to(elsewhere)
        rename(folder, "sub/shard.00000.mds")
    refused(folder, r"is a link to .*elsewhere")
    with pytest.raises(DataError, match="is a link"):
        merge_indexes(tmp_path / "merged", [folder])


def test_links_that_stay_and_links_to_the_data_set_are_read(tmp_path):
    folder = write(tmp_path / "real", video_rows(2))
    (folder / "shard.00000.mds").rename(folder / "first.mds")
    (folder / "shard.00000.mds").symlink_to("first.mds")
    (tmp_path / "link").symlink_to(folder)
    for source in (folder, tmp_path / "link", f"file://{tmp_path / 'link'}"):
        assert MdsDataset(source)[1]["text"]["id"] == 1


def test_a_snapshot_of_the_hubs_cache_is_read(tmp_path):
    folder = write(tmp_path / "snapshots" / "abc", video_rows(2))
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../../blobs/{number}")
    assert MdsDataset(folder)[1]["text"]["id"] == 1


def test_a_merged_index_leads_to_its_parts_through_links_too(tmp_path):
    write(tmp_path / "disk" / "part" / "0", video_rows(3))
    merge_indexes(tmp_path / "disk" / "part")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a").symlink_to(tmp_path / "disk" / "part")
    merge_indexes(tmp_path / "s3" / "0", [tmp_path / "parts" / "a"])
    assert len(list(MdsDataset(tmp_path / "s3" / "0"))) == 3


@pytest.mark.parametrize("name", ["../../../other/x.mds", "../../x.mds"])
def test_an_address_does_not_lead_out_of_its_store(name):
    assert join("s3://bucket/a/b", "../c/x.mds") == "s3://bucket/a/c/x.mds"
    with pytest.raises(DataError, match="leads out of its store"):
        join("s3://bucket/a", name)


@pytest.mark.parametrize("samples", [2**63, 2**64, 10**12, 10**4, 2**30, pytest.param(10**400, id="401 digits")])
def test_more_samples_than_the_bytes_can_hold(samples, tmp_path):
    folder = write(tmp_path / "a", video_rows(2))
    text = (folder / "index.json").read_text().replace('"samples": 2,', f'"samples": {samples},')
    (folder / "index.json").write_text(text)
    refused(folder, r"index\.json: shard 0")


def test_an_index_of_many_large_promises(tmp_path):
    folder = write(tmp_path / "a", video_rows(2))
    index = json.loads((folder / "index.json").read_text())
    shard = index["shards"][0] | {"samples": 10**9}
    shard["raw_data"]["bytes"] = 2**32 - 1
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [shard] * 1000}))
    refused(folder, "promises 1000000000000 samples; at most")


@pytest.mark.parametrize("piece_bytes", [1, 3, 4, 7, 8, 16, 1000])
def test_a_table_is_checked_in_pieces_of_any_size(piece_bytes, tmp_path):
    folder = write(tmp_path / "a", video_rows(30))
    (shard,) = parse_index((folder / "index.json").read_bytes(), "index")
    right = (folder / "shard.00000.mds").read_bytes()[: shard.head_bytes]

    def check(table):
        asked = []
        pieces = (asked.append(k) or table[k : k + piece_bytes] for k in range(0, len(table), piece_bytes))
        try:
            check_table(pieces, shard, "s")
        finally:
            check.last = asked[-1] if asked else 0

    check(right)
    numbers = np.frombuffer(right, "<u4")
    for place, value in ((0, 29), (1, 0), (1, shard.head_bytes - 1), (15, 2**32 - 1), (15, 0), (31, 7), (31, 2**31)):
        wrong = numbers.copy()
        wrong[place] = value
        with pytest.raises(DataError, match="write the shard again"):
            check(wrong.tobytes())
        assert check.last <= 4 * place + 8  # what follows is not read
    for cut in (0, 3, 4, 50, len(right) - 1):
        with pytest.raises(DataError, match="write the shard again"):
            check(right[:cut])


def saved(lengths):
    file = io.BytesIO()
    np.save(file, lengths)
    return file.getvalue()


GOOD = saved(np.arange(12, dtype=np.int32).reshape(4, 3))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x93NUMPY", GOOD[:-1], GOOD + b"x",
        GOOD.replace(b"(4, 3)", b"(4, 3"), GOOD.replace(b"(4, 3)", b"(4(3)}"),
        GOOD.replace(b"<i4", b"<f4"), GOOD.replace(b"<i4", b"O  "), GOOD.replace(b"(4, 3)", b"(9999999999999, 3)"),
        GOOD.replace(b"'descr'", b"'d''cr'"), saved(-np.ones((4, 3), np.int32)), saved(np.zeros((3, 4), np.int32)),
        GOOD[:6] + b"\x03" + GOOD[7:], b"PK\x03\x04" + bytes(40), GOOD.replace(b"False", b"[[[[["), b"\x80\x04N.",
    ],
)  # fmt: skip
def test_lengths_that_are_damaged(data, tmp_path):
    with pytest.raises(DataError, match="lengths") as caught:
        parse_lengths(data, "lengths.npy", 4)
    assert "\n" not in str(caught.value)
    (tmp_path / "0.npy").write_bytes(data)
    assert _load(tmp_path / "0.npy", 4) is None  # of an interrupted run: measured again


@examples(150)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=6))
def test_no_damage_of_lengths_gives_another_error(position, piece):
    data = GOOD[:position] + piece + GOOD[position + len(piece) :]
    said = ""
    try:
        assert parse_lengths(data, "lengths.npy", 4).shape == (4, 3)
    except DataError as error:
        said = str(error)
    assert "\n" not in said


def test_lengths_of_either_order_are_read():
    lengths = np.arange(12, dtype=np.int32).reshape(4, 3)
    for order in (lengths, np.asfortranarray(lengths)):
        np.testing.assert_array_equal(parse_lengths(saved(order), "lengths.npy", 4), lengths)
    assert parse_lengths(saved(np.zeros((0, 3), np.int32)), "lengths.npy", 0).shape == (0, 3)
