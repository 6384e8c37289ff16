"""Records to shards: what goes in, what is left out and why, and killing it at any moment."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cli_support import COMMAND, environment, hourllava
from data.shard_rows import contents
from hourllava.data.mds_reader import MdsDataset
from hourllava.data.mds_writer import ShardWriter
from hourllava.data.mixtures import Sampling, parse_part, published_mixture, read_mixture
from hourllava.data.record_file import RecordFile, read_records
from hourllava.data.shard_run import merge_stage, run_merge, run_shard
from hourllava.data.sharding import ShardSettings, shard_records
from hourllava.errors import ConfigError, DataError

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


def test_videos_in_parallel_keep_their_order(tmp_path):
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


def test_two_writers_of_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("hourllava.data.mds_writer._LOCK_WAIT_SECONDS", 0.1)
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
    arguments += ["--workers", 2, "--size-limit-mib", 1, "--part", "1/2"]
    variables = environment(tmp_path / "cache") | {"HOURLLAVA_TEST": str(tmp_path)}
    start = time.monotonic()
    result = hourllava(*arguments, "--out", tmp_path / "alone", cache=tmp_path / "cache")
    whole_seconds = time.monotonic() - start
    assert result.returncode == 0, result.stderr
    assert "records were skipped" in result.stdout
    rng = random.Random(seed)
    kills = 0
    while kills < num_kills:
        command = [*COMMAND, *map(str, arguments), "--out", str(tmp_path / "killed")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables)
        time.sleep(rng.uniform(0, whole_seconds))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:  # it was faster: once more from the beginning
            shutil.rmtree(tmp_path / "killed")
        else:
            kills += 1
    result = hourllava(*arguments, "--out", tmp_path / "killed", cache=tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


def test_killed_and_started_again(tmp_path):
    kill_at_random_moments(tmp_path, 2, seed=0)


@pytest.mark.slow
def test_killed_thirty_times(tmp_path):
    kill_at_random_moments(tmp_path, 30, seed=1)


_SLOW_WRITER = """
import sys, time
from itertools import islice
from pathlib import Path
from hourllava.data.mds_writer import ShardWriter
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
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder):
        command = [COMMAND[0], "-c", _SLOW_WRITER, folder]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=variables)

    alone = start(tmp_path / "alone")
    alone.communicate()
    assert alone.returncode == 0
    rng, kills = random.Random(seed), 0
    while kills < num_kills:
        process = start(tmp_path / "killed")
        process.stdout.readline()  # importing takes longer than writing: wait until it is over
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.stdout.close()
        if process.wait() == 0:  # it was faster: once more from the beginning
            shutil.rmtree(tmp_path / "killed")
        else:
            kills += 1
    last = start(tmp_path / "killed")
    last.communicate()
    assert last.returncode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


def test_the_writer_killed_among_its_shards(tmp_path):
    kill_the_writer(tmp_path, 4, seed=0)


@pytest.mark.slow
def test_the_writer_killed_thirty_times(tmp_path):
    kill_the_writer(tmp_path, 30, seed=1)


RECORDS = st.lists(
    st.recursive(st.text() | st.integers() | st.booleans() | st.none(), lambda x: st.dictionaries(st.text(), x))
)


@settings(deadline=None, max_examples=40)
@given(RECORDS, st.sampled_from([None, 0, 3]), st.booleans(), st.integers(1, 40), st.booleans())
def test_records_of_any_layout_are_found(tmp_path_factory, records, indent, ascii_only, piece_bytes, mark):
    path = tmp_path_factory.mktemp("records") / "a.json"
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only).encode()
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hourllava.data.record_file._PIECE_BYTES", piece_bytes)
        found = RecordFile(path)
    assert list(read_records(path, found.spans(np.arange(len(found))))) == records


@pytest.mark.parametrize("text", ["", "{}", "[1, 2", "[1 2]", '[{"a": 1}, {"a": }]', "[1,]", "nonsense", '["\udcff"]'])
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


def test_sampling():
    choose = {text: Sampling.parse(text).choose(205).tolist() for text in ("all", "first:10%", "end:1%", "random:30%")}
    assert choose["all"] == list(range(205))
    assert choose["first:10%"] == list(range(21))
    assert choose["end:1%"] == [202, 203, 204]
    assert len(set(choose["random:30%"])) == 62
    assert choose["random:30%"] == sorted(choose["random:30%"]) != Sampling.parse("random:30%").choose(205, 1).tolist()
    for text in ("", "first", "first:0%", "end:101%", "middle:5%", "first:5"):
        with pytest.raises(ConfigError, match="allowed"):
            Sampling.parse(text)


def test_names_and_parts_that_do_not_exist():
    assert parse_part("3/10") == (3, 10)
    for wrong in ("10/10", "a", "1", "-1/3", "0/0"):
        with pytest.raises(ConfigError, match="allowed"):
            parse_part(wrong)
    with pytest.raises(ConfigError, match="allowed"):
        published_mixture().source("llava")
    with pytest.raises(ConfigError, match="allowed"):
        published_mixture().stage("s4")


def test_published_source_lists():
    sources = published_mixture().sources
    counts = {name: len(source.files) for name, source in sources.items()}
    assert counts == {
        "llava_ov_si_onlyimg": 88, "llavavideo_text": 3, "llavavideo_si": 71, "llavavideo_mi": 35,
        "llavavideo_video": 39, "videomarathon_video": 1,
    }  # fmt: skip
    assert [source.workers for source in sources.values()] == [128, 16, 32, 64, 64, 64]
    taken = sources["llavavideo_si"].files["LLaVA-OneVision/jsons/MathV360K_PMC-VQA_35958.json"]
    assert taken == Sampling("first", 1)


def test_published_stage_lists():
    def streams(stage):
        found = published_mixture().stage(stage).streams
        assert list(found) == ["0", "1"][: len(found)]
        return [[part.folder + (f" {part.half}" if part.half else "") for part in parts] for parts in found.values()]

    assert streams("s1") == [[f"llava_ov_si_onlyimg_part{k}" for k in range(10)]]
    (s2,) = streams("s2")
    assert sorted(s2) == [
        "llavavideo_mi_part0", "llavavideo_si_part0", "llavavideo_text_part0", "llavavideo_video_part0",
        "llavavideo_video_part1",
    ]  # fmt: skip
    first, second = streams("s3")
    assert [published_mixture().stage(stage).videos for stage in ("s1", "s2", "s3")] == ["frames", "frames", "features"]
    others = ("text", "si", "mi")
    assert sorted(first) == sorted(
        [f"llavavideo_video_part{k}" for k in range(2, 10)]
        + [f"llavavideo_{name}_part{k}" for name in others for k in range(1, 5)]
        + [f"llavavideo_{name}_part5 first" for name in others]
    )
    assert sorted(second) == sorted(
        [f"videomarathon_video_part{k}" for k in range(10)]
        + [f"llavavideo_{name}_part{k}" for name in others for k in range(6, 10)]
        + [f"llavavideo_{name}_part5 second" for name in others]
    )


def test_a_source_list_and_the_streams_of_stage_3(tmp_path):
    total = 0
    for folder in [part.folder for part in published_mixture().stage("s3").parts]:
        for worker in range(2):
            with ShardWriter(tmp_path / "parts" / folder / str(worker), {"a": "str"}, lengths=True) as writer:
                for k in range(3):
                    writer.write({"a": f"{folder} {worker} {k}"}, (1, 1, 1))
                    total += 1
        run_merge([tmp_path / "parts" / folder], None, None, None)
    counts = merge_stage(published_mixture(), "s3", tmp_path / "parts", tmp_path / "s3")
    assert sum(counts.values()) == total
    assert {path.name for path in (tmp_path / "s3").rglob("*")} == {
        "0",
        "1",
        "index.json",
        "lengths.npy",
        "streams.json",
    }
    streams = json.loads((tmp_path / "s3" / "streams.json").read_text())["streams"]
    assert streams == [{"folder": name, "samples": count} for name, count in counts.items()]
    seen = [row["a"] for name in counts for row in MdsDataset(tmp_path / "s3" / name)]
    assert len(set(seen)) == len(seen) == total
    with pytest.raises(ConfigError, match="needs --out"):
        run_merge([tmp_path / "parts"], None, "s3", None)
    with pytest.raises(DataError, match="write the shards first"):
        merge_stage(published_mixture(), "s1", tmp_path / "parts", tmp_path / "s1")


MIXTURE = {
    "parts": 2,
    "sources": {"films": {"kind": "video", "media": "films", "files": {"films.json": "first:50%"}}},
    "stages": {"s1": {"streams": {"0": ["films_part0..1"]}}},
}


def test_a_mixture_of_ones_own(tmp_path):
    mixture = read_mixture(save(tmp_path / "mixture.json", MIXTURE))
    assert [part.folder for part in mixture.stage("s1").parts] == ["films_part0", "films_part1"]
    assert mixture.source("films").files == {"films.json": Sampling("first", 50)}
    for k in range(2):
        with ShardWriter(tmp_path / f"films_part{k}", {"a": "str"}) as writer:
            writer.write({"a": str(k)})
    assert run_merge([tmp_path], tmp_path / "s1", "s1", tmp_path / "mixture.json") == [
        f"{tmp_path / 's1/0'}: 2 samples"
    ]
    with pytest.raises(ConfigError, match="--mixture goes with --stage"):
        run_merge([tmp_path], None, None, tmp_path / "mixture.json")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("stages", "s1", "streams", "0"), ["films_part2"], "parts are numbered 0 to 1"),
        (("stages", "s1", "streams", "0"), ["pictures_part0"], "no source is called 'pictures'"),
        (("stages", "s1", "streams", "0"), ["films"], "allowed: NAME_part3"),
        (("stages", "s1", "streams", "0"), "films_part0", "a list of parts"),
        (("stages", "s1", "videos"), "features", "films names no folder of them"),
        (("sources", "films", "kind"), "sound", "'video', 'image' or 'images'"),
        (("sources", "films", "files"), {"a.json": "half"}, "first:N%"),
        (("sources", "films", "colour"), "red", "not permitted"),
        (("parts",), 0, "greater than or equal to 1"),
    ],
)
def test_mixtures_that_are_none(place, value, words, tmp_path):
    mixture = json.loads(json.dumps(MIXTURE))
    target = mixture
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    with pytest.raises(ConfigError, match=words) as caught:
        read_mixture(save(tmp_path / "mixture.json", mixture))
    assert "\n" not in str(caught.value)
    (tmp_path / "broken.json").write_text("{")
    for name in ("broken.json", "gone.json"):
        with pytest.raises(ConfigError, match=name):
            read_mixture(tmp_path / name)


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
    assert lines == [f"{tmp_path / 'out'}: 5 samples"]
    numbers = [int(row["text"]["id"].split()[-1]) for row in MdsDataset(tmp_path / "out")]
    assert numbers == [3, 13, 8, 3, 13]
    assert MdsDataset(tmp_path / "out")[0]["text"]["source"].startswith("magpie_pro_qwen2")


def test_options_that_do_not_go_together(tmp_path):
    path = str(save(tmp_path / "a.json", []))
    for records, kind in (([path], None), (["llavavideo_si"], "video")):
        with pytest.raises(ConfigError, match="--kind"):
            run_shard(**options(tmp_path, records, kind=kind))
    with pytest.raises(ConfigError, match="a dot and a name"):
        run_shard(**options(tmp_path, [path], kind="video", video_suffix="safetensors"))
    with pytest.raises(ConfigError, match="1 or more"):
        run_shard(**options(tmp_path, [path], kind="image", num_workers=0))


def test_commands(tmp_path):
    save(tmp_path / "records.json", video_records(tmp_path / "media", 6, missing=(2,)))
    arguments = ("data", "shard", tmp_path / "records.json", "--media", tmp_path / "media", "--kind", "video")
    result = hourllava(*arguments, "--out", tmp_path / "out", cache=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'out'}: 5 samples",
        f"1 records were skipped; the reasons are in {tmp_path / 'out' / 'skipped.jsonl'}",
    ]
    result = hourllava("data", "merge", tmp_path / "out", cache=tmp_path)
    assert result.stdout == f"{tmp_path / 'out'}: 5 samples\n"
    result = hourllava("data", "merge", tmp_path / "media", cache=tmp_path)
    assert result.returncode == DataError.exit_code
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
