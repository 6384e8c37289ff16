"""Records to shards: what goes in, what is left out and why, and killing it at any moment."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import examples
from data.shard_rows import contents
from forked_workers import in_forked_command
from forking import COMMAND, environment, run_hourllava, run_python, start_python
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.mds.writer import ShardWriter
from hourllava.data.prepare import shard as shard_module
from hourllava.data.prepare.commands import run_shard
from hourllava.data.prepare.mixtures import Sampling, published_mixture
from hourllava.data.prepare.shard import ShardSettings, shard_records
from hourllava.data.records.record_file import RecordFile, read_records
from hourllava.errors import ConfigError, DataError, PartlyDoneError
from hourllava.locks import lock_folder
from hourllava.processes import worker_pool

ALL = Sampling("all")


def turns(value="hello"):
    return [{"from": "human", "value": f"<image>\n{value}"}, {"from": "gpt", "value": "yes"}]


def video_records(root, count, missing=(), text="hello"):
    """Records whose videos are there, but for some; returns them."""
    (root / "src").mkdir(parents=True, exist_ok=True)
    for k in range(count):
        if k not in missing:
            (root / "src" / f"{k}.mp4").write_bytes(b"video")
    return [
        {"id": f"q{k}", "data_source": "s", "video": f"src/{k}.mp4", "conversations": turns(text)} for k in range(count)
    ]


def save(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records))
    return path


def shard(tmp_path, records, kind, **options):
    """Shard records whose media lie in tmp_path/media; returns the summary."""
    path = save(tmp_path / "records.json", records)
    chosen = ShardSettings(files=((path, ALL),), kind=kind, **{"media_root": tmp_path / "media", **options})
    return shard_records(chosen, tmp_path / "out")


@pytest.mark.slow
def test_videos_in_parallel_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_module, "worker_pool", worker_pool)
    records = video_records(tmp_path / "media", 50, missing=(7, 20))
    summary = shard(tmp_path, records, "video", num_workers=3, size_limit_bytes=1500)
    assert (summary.num_samples, summary.num_skipped) == (48, 2)
    dataset = MdsDataset(tmp_path / "out")
    dataset.verify()
    kept = [record for k, record in enumerate(records) if k not in (7, 20)]
    assert [row["text"] for row in dataset] == [{**record, "source": "records"} for record in kept]
    assert [row["video"] for row in dataset] == [record["video"] for record in kept]
    ledger = [json.loads(line) for line in summary.ledger.read_text().splitlines()]
    assert [(entry["number"], entry["id"], entry["reason"]) for entry in ledger] == [
        (7, "q7", "src/7.mp4 is missing"),
        (20, "q20", "src/20.mp4 is missing"),
    ]
    before = contents(tmp_path / "out")
    again = shard(tmp_path, records, "video", num_workers=3, size_limit_bytes=1500)
    assert again == summary
    assert contents(tmp_path / "out") == before


def test_features_in_place_of_videos(tmp_path):
    records = video_records(tmp_path / "media", 2)
    (tmp_path / "media" / "src" / "0.safetensors").touch()
    (tmp_path / "media" / "src" / "1.safetensors").write_bytes(b"features")
    records += [{"id": repr(name), "video": name, "conversations": turns()} for name in (".", "..", "/", "", 3, None)]
    summary = shard(tmp_path, records, "video", video_suffix=".safetensors")
    assert (summary.num_samples, summary.num_skipped) == (1, 7)
    row = MdsDataset(tmp_path / "out")[0]
    assert (row["video"], row["text"]["video"]) == ("src/1.safetensors", "src/1.mp4")
    reasons = [json.loads(line)["reason"] for line in summary.ledger.read_text().splitlines()]
    assert reasons[0] == "src/0.safetensors is empty (0 bytes)"


def test_paths_of_rows_are_below_the_media_root(tmp_path):
    records = video_records(tmp_path / "media" / "films", 2, missing=(1,))
    Image.new("RGB", (4, 4)).save(tmp_path / "media" / "films" / "a.jpg")
    summary = shard(tmp_path, records, "video", media_folder="films")
    assert (summary.num_samples, summary.num_skipped) == (1, 1)
    assert MdsDataset(tmp_path / "out")[0]["video"] == "films/src/0.mp4"
    path = save(tmp_path / "pictures.json", [{"id": "a", "image": "a.jpg", "conversations": turns()}])
    chosen = ShardSettings(files=((path, ALL),), kind="image", media_root=tmp_path / "media", media_folder="films")
    assert shard_records(chosen, tmp_path / "pictures").num_samples == 1


def test_single_images(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    picture = Image.linear_gradient("L").resize((30, 20)).convert("RGB")
    picture.save(media / "rgb.jpg", quality=60)
    picture.convert("RGBA").save(media / "alpha.png")
    picture.convert("L").save(media / "grey.jpg")
    (media / "text.jpg").write_text("<html>404</html>")
    (media / "cut.jpg").write_bytes((media / "rgb.jpg").read_bytes()[:400])
    (media / "empty.png").touch()
    names = (
        "rgb.jpg",
        "alpha.png",
        "grey.jpg",
        "text.jpg",
        "cut.jpg",
        "empty.png",
        "gone.jpg",
        "../out.jpg",
        "/x.jpg",
    )
    records: list = [{"id": name, "image": name, "conversations": turns()} for name in names]
    records += [
        {"id": "text only", "conversations": turns()},
        {"id": "one in a list", "image": ["rgb.jpg"], "conversations": turns()},
        {"id": "several", "image": ["rgb.jpg", "rgb.jpg"], "conversations": turns()},
        {"id": "number", "image": 3, "conversations": turns()},
        {"id": "film", "video": "a.mp4", "conversations": turns()},
        {"id": "half a pair", "image": "\ud800.jpg", "conversations": turns()},
        {"id": "long", "image": "x" * 300, "conversations": turns()},
        {"id": "no turns"},
        "no object",
    ]
    summary = shard(tmp_path, records, "image")
    dataset = MdsDataset(tmp_path / "out")
    assert [row["text"]["id"] for row in dataset] == [*names[:3], "text only", "one in a list"]
    assert dataset.raw(0, ["image"])["image"] == (media / "rgb.jpg").read_bytes()  # not encoded again
    assert [(row["image"].mode, row["image"].size) for row in dataset] == [("RGB", (30, 20))] * 3 + [
        ("RGB", (1, 1)),
        ("RGB", (30, 20)),
    ]
    error = np.abs(np.asarray(dataset[1]["image"], int) - np.asarray(picture, int)).mean()
    assert error < 2
    reasons = {entry["id"]: entry["reason"] for entry in map(json.loads, summary.ledger.read_text().splitlines())}
    assert len(reasons) == summary.num_skipped == 13
    for name, reason in {
        "text.jpg": "not an image", "cut.jpg": "damaged", "empty.png": "not an image", "gone.jpg": "missing",
        "../out.jpg": "leads out", "/x.jpg": "leads out", "several": "kind 'images'", "number": "a path or a list",
        "film": "kind 'video'", "half a pair": "no file name", "long": "too long",
        "no turns": "conversations", None: "must be an object",
    }.items():  # fmt: skip
        assert reason in reasons[name], name
    assert len(dataset) + summary.num_skipped == len(records)


def test_several_images(tmp_path):
    (tmp_path / "media").mkdir()
    for k in range(3):
        Image.new("RGB", (10 + k, 8), (200, k, 0)).save(tmp_path / "media" / f"{k}.png")
    chosen = [["0.png", "1.png", "2.png"], "1.png", [], ["0.png", "9.png"]]
    records = [{"id": k, "image": names, "conversations": turns()} for k, names in enumerate(chosen)]
    assert shard(tmp_path, records, "images").num_skipped == 1
    sizes = [[image.size for image in row["image"]] for row in MdsDataset(tmp_path / "out")]
    assert sizes == [[(10, 8), (11, 8), (12, 8)], [(11, 8)], [(1, 1)]]


def test_parts_and_images_only(tmp_path):
    (tmp_path / "media").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "media" / "a.jpg")
    records = [{"id": k, "conversations": turns(), **({"image": "a.jpg"} if k % 3 else {})} for k in range(40)]
    path = save(tmp_path / "records.json", records)
    second = save(tmp_path / "more.json", records)
    everything = [k for count in (30, 20) for k in range(count) if k % 3]
    for part in (0, 4):
        chosen = ShardSettings(
            files=((path, Sampling("first", 75)), (second, Sampling("first", 50))), kind="image",
            media_root=tmp_path / "media", part=(part, 7), only_images=True,
        )  # fmt: skip
        shard_records(chosen, tmp_path / str(part))
        got = [row["text"]["id"] for row in MdsDataset(tmp_path / str(part))]
        assert got == everything[part::7]


def test_another_run_in_the_folder_is_refused(tmp_path):
    records = video_records(tmp_path / "media", 4)
    shard(tmp_path, records, "video")
    with pytest.raises(DataError, match="use another folder"):
        shard(tmp_path, records, "video", num_workers=2)
    with pytest.raises(DataError, match="use another folder"):
        shard(tmp_path, records[:3], "video")
    with pytest.raises(DataError, match="choose another folder"):
        ShardWriter(tmp_path / "out" / "0", {"a": "str"})


@pytest.mark.parametrize("name", ["records.json", "records.jsonl"])
def test_a_run_is_told_by_what_its_files_hold(name, tmp_path, monkeypatch):
    """A changed file is another run, also of equal size and date; an equal file is the same one, wherever it lies."""
    records = video_records(tmp_path / "media", 6, text="right")
    path = tmp_path / "one" / name

    def run(path, **options):
        chosen = {"kind": "video", "media_root": tmp_path / "media", **options}
        return shard_records(ShardSettings(files=((path, ALL),), **chosen), tmp_path / "out")

    def write(path, records):
        path.parent.mkdir(exist_ok=True)
        lines = [json.dumps(record) for record in records]
        path.write_text("\n".join(lines) if name.endswith("l") else "[" + ",".join(lines) + "]")
        return path

    run(write(path, records))
    before, times = contents(tmp_path / "out"), path.stat()
    changed = json.loads(json.dumps(records).replace("right", "wrong"))
    write(path, changed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    with pytest.raises(DataError, match="holds shards of other records or settings") as caught:
        run(path)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "out") == before
    run(write(tmp_path / "two" / name, records))  # elsewhere
    monkeypatch.chdir(tmp_path)
    run(Path("two") / name, media_root=Path("media"))  # and told otherwise
    assert contents(tmp_path / "out") == before
    assert str(tmp_path) not in (tmp_path / "out" / "settings.json").read_text()
    with pytest.raises(DataError, match="other records"):  # its name is in the rows
        run(write(tmp_path / "one" / f"renamed{path.suffix}", records))


def test_a_file_that_changes_under_the_run_is_told(tmp_path, monkeypatch):
    records = video_records(tmp_path / "media", 4)
    path = save(tmp_path / "records.json", records)
    merge = shard_module.KnownFile.check_unchanged

    def change_first(self):
        save(path, records[:3])
        merge(self)

    monkeypatch.setattr(shard_module.KnownFile, "check_unchanged", change_first)
    chosen = ShardSettings(files=((path, ALL),), kind="video", media_root=tmp_path / "media")
    with pytest.raises(DataError, match="changed while it was read"):
        shard_records(chosen, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()


def test_two_runs_of_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("hourllava.locks.WAIT_SECONDS", 0)
    records = video_records(tmp_path / "media", 2)
    (tmp_path / "out").mkdir()
    with lock_folder(tmp_path / "out"), pytest.raises(DataError, match="another process"):
        shard(tmp_path, records, "video")
    assert shard(tmp_path, records, "video").num_samples == 2


def test_two_writers_of_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("hourllava.locks.WAIT_SECONDS", 0.1)
    with ShardWriter(tmp_path, {"a": "str"}), pytest.raises(DataError, match="another process"):
        ShardWriter(tmp_path, {"a": "str"})
    assert ShardWriter(tmp_path, {"a": "str"}).finished


def test_an_error_of_the_caller_keeps_what_is_done(tmp_path):
    rows = [{"a": "x" * 50} for _ in range(20)]
    options = {"size_limit_bytes": 700, "hashes": ["sha1"]}
    with ShardWriter(tmp_path / "whole", {"a": "str"}, **options) as writer:
        for row in rows:
            writer.write(row)

    def interrupted():
        with ShardWriter(tmp_path / "cut", {"a": "str"}, **options) as writer:
            for row in rows[:15]:
                writer.write(row)
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert not (tmp_path / "cut" / "index.json").exists()
    with ShardWriter(tmp_path / "cut", {"a": "str"}, **options) as writer:
        assert 0 < writer.position <= 15
        for row in rows[writer.position :]:
            writer.write(row)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def kill_at_random_moments(tmp_path, num_kills, seed):
    """Kill `data shard` at random moments of its run; the end must be that of a run left alone."""
    records = video_records(tmp_path / "media", 3000, missing=range(5, 3000, 97), text="x" * 3000)
    save(tmp_path / "records.json", records)
    arguments = ["data", "shard", tmp_path / "records.json", "--media", tmp_path / "media", "--kind", "video"]
    arguments += ["--workers", 2, "--size-limit-mib", 1, "--part", "1/2", "--out"]
    command, env = in_forked_command(COMMAND), environment(tmp_path / "cache")
    start = time.monotonic()
    result = run_python(command, *arguments, tmp_path / "alone", env=env)
    whole_seconds = time.monotonic() - start
    assert result.returncode == PartlyDoneError.exit_code, result.stderr
    assert "records were skipped" in result.stderr
    rng = random.Random(seed)
    kills = 0
    while kills < num_kills:
        with start_python(command, *arguments, tmp_path / "killed", env=env) as process:
            time.sleep(rng.uniform(0, whole_seconds))
            process.kill()
            code = process.wait()
        if code == PartlyDoneError.exit_code:  # it was faster: once more from the beginning
            shutil.rmtree(tmp_path / "killed")
        else:
            kills += 1
    result = run_python(command, *arguments, tmp_path / "killed", env=env)
    assert result.returncode == PartlyDoneError.exit_code, result.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


@pytest.mark.slow
def test_killed_and_started_again(tmp_path):
    kill_at_random_moments(tmp_path, 2, seed=0)


@pytest.mark.slow
def test_killed_thirty_times(tmp_path):
    kill_at_random_moments(tmp_path, 30, seed=1)


_SLOW_WRITER = """
import sys, time
from itertools import islice
from pathlib import Path
from hourllava.data.mds.writer import ShardWriter
rows = ({"a": "x" * (k % 90)} for k in range(4000))
with ShardWriter(Path(sys.argv[1]), {"a": "str"}, size_limit_bytes=3000, hashes=["sha1"], lengths=True) as writer:
    print("started", flush=True)
    for k, row in enumerate(islice(rows, writer.position, None), start=writer.position):
        if k % 11:
            writer.write(row, (k, 1, 2))
        else:
            writer.skip({"number": k})
"""


def kill_the_writer(tmp_path, num_kills, seed):
    def write(folder):
        with start_python(_SLOW_WRITER, folder) as process:
            assert process.wait() == 0, process.stderr

    write(tmp_path / "alone")
    rng, kills = random.Random(seed), 0
    while kills < num_kills:
        with start_python(_SLOW_WRITER, tmp_path / "killed") as process:
            while "started" not in process.stdout and process.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            code = process.wait()
        if code == 0:  # it was faster: once more from the beginning
            shutil.rmtree(tmp_path / "killed")
        else:
            kills += 1
    write(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


def test_the_writer_killed_among_its_shards(tmp_path):
    kill_the_writer(tmp_path, 4, seed=0)


@pytest.mark.slow
def test_the_writer_killed_thirty_times(tmp_path):
    kill_the_writer(tmp_path, 30, seed=1)


RECORDS = st.lists(
    st.recursive(st.text() | st.integers() | st.booleans() | st.none(), lambda x: st.dictionaries(st.text(), x))
)


@examples(40)
@given(RECORDS, st.sampled_from([None, 0, 3]), st.booleans(), st.integers(1, 40), st.booleans())
def test_records_of_any_layout_are_found(tmp_path_factory, records, indent, ascii_only, piece_bytes, mark):
    path = tmp_path_factory.mktemp("records") / "a.json"
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only).encode()
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hourllava.data.records.reading.WINDOW_CHARACTERS", piece_bytes)
        found = RecordFile(path)
    assert list(read_records(path, found.spans(np.arange(len(found))))) == records


@pytest.mark.parametrize("text", ["", "{}", "[1, 2", "[1 2]", '[{"a": 1}, {"a": }]', "[1,]", "[1] 2", "nonsense"])
def test_files_that_are_no_list_of_records(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"a\.json") as caught:
        RecordFile(path)
    assert "\n" not in str(caught.value)


def test_lines_that_are_no_records(tmp_path):
    lines = ['{"id": "a", "conversations": []}', "{broken", "", '{"id": "b", "conversations": []}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    chosen = ShardSettings(files=((tmp_path / "a.jsonl", ALL),), kind="image", media_root=tmp_path)
    summary = shard_records(chosen, tmp_path / "out")
    assert (summary.num_samples, summary.num_skipped) == (2, 1)
    assert json.loads(summary.ledger.read_text())["reason"].startswith("not JSON")
    for name in ("missing.json", "a.csv"):
        with pytest.raises(DataError, match=name):
            RecordFile(tmp_path / name)


def test_a_damaged_record_of_a_list_costs_only_itself(tmp_path):
    records = [json.dumps({"id": str(k), "conversations": turns()}) for k in range(3)]
    records[1] = records[1].replace('"id":', '"id"')
    (tmp_path / "a.json").write_text("[" + ",\n".join(records) + "]")
    chosen = ShardSettings(files=((tmp_path / "a.json", ALL),), kind="image", media_root=tmp_path)
    summary = shard_records(chosen, tmp_path / "out")
    assert (summary.num_samples, summary.num_skipped) == (2, 1)
    assert json.loads(summary.ledger.read_text())["number"] == 1


def test_nothing_to_train_on_is_an_error(tmp_path):
    path = save(tmp_path / "a.json", [{"id": "1", "video": "gone.mp4", "conversations": turns()}])
    with pytest.raises(DataError, match="holds no sample: 1 records were skipped; the reasons are in"):
        list(run_shard(**options(tmp_path, [str(path)], kind="video")))
    empty = save(tmp_path / "b.json", [])
    with pytest.raises(DataError, match="no record was chosen"):
        list(run_shard(**options(tmp_path, [str(empty)], kind="video", out=tmp_path / "out2")))
    with pytest.raises(DataError, match="unpack it first"):
        list(run_shard(**options(tmp_path, [str(tmp_path / "a.json.gz")], kind="video")))


def options(tmp_path, records, **changes):
    defaults = {
        "records": records, "out": tmp_path / "out", "media_root": tmp_path, "kind": None, "records_root": tmp_path,
        "sample": "all", "part": "0/1", "num_workers": 1, "seed": 0, "video_suffix": None, "size_limit_mib": 64,
    }  # fmt: skip
    return {**defaults, **changes}


def test_a_published_list_from_its_files(tmp_path):
    for path in published_mixture().source("llavavideo_text").files:
        save(tmp_path / path, [{"id": f"{path} {k}", "conversations": turns()} for k in range(15)])
    lines = run_shard(**options(tmp_path, ["llavavideo_text"], part="3/10"))
    assert list(lines) == [f"{tmp_path / 'out'}: 5 samples"]
    numbers = [int(row["text"]["id"].split()[-1]) for row in MdsDataset(tmp_path / "out")]
    assert numbers == [3, 13, 8, 3, 13]
    assert MdsDataset(tmp_path / "out")[0]["text"]["source"].startswith("magpie_pro_qwen2")


def test_options_that_do_not_go_together(tmp_path):
    path = str(save(tmp_path / "a.json", []))
    for records, kind in (([path], None), (["llavavideo_si"], "video")):
        with pytest.raises(ConfigError, match="--kind"):
            list(run_shard(**options(tmp_path, records, kind=kind)))
    with pytest.raises(ConfigError, match="a dot and a name"):
        list(run_shard(**options(tmp_path, [path], kind="video", video_suffix="safetensors")))
    with pytest.raises(ConfigError, match="1 or more"):
        list(run_shard(**options(tmp_path, [path], kind="image", num_workers=0)))


def test_commands(tmp_path):
    save(tmp_path / "records.json", video_records(tmp_path / "media", 6, missing=(2,)))
    arguments = ("data", "shard", tmp_path / "records.json", "--media", tmp_path / "media", "--kind", "video")
    result = run_hourllava(*arguments, "--out", tmp_path / "out", cache=tmp_path)
    assert result.returncode == PartlyDoneError.exit_code, result.stderr
    assert result.stdout == f"{tmp_path / 'out'}: 5 samples\n"
    ledger = tmp_path / "out" / "skipped.jsonl"
    assert result.stderr.splitlines()[-1] == f"error: 1 records were skipped; the reasons are in {ledger}"
    result = run_hourllava("data", "merge", tmp_path / "out", cache=tmp_path)
    assert result.stdout == f"{tmp_path / 'out'}: 5 samples\n"
    result = run_hourllava("data", "merge", tmp_path / "media", cache=tmp_path)
    assert result.returncode == DataError.exit_code
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
