"""Mixtures: the published one, one's own, and merging the parts of a stage, killed at any moment."""

import json

import pytest

from data.kill_loop import KILL_LOOP
from data.shard_rows import contents
from forking import run_python
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.mds.writer import ShardWriter
from hourllava.data.prepare.commands import merge_stage, run_merge, stage_media_root, stream_folders
from hourllava.data.prepare.mixtures import Sampling, published_mixture, read_mixture
from hourllava.errors import ConfigError, DataError


def save(path, content):
    path.write_text(json.dumps(content))
    return path


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


def test_names_that_do_not_exist():
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
        list(run_merge([tmp_path / "parts" / folder], None, None, None))
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
        list(run_merge([tmp_path / "parts"], None, "s3", None))
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
    assert list(run_merge([tmp_path], tmp_path / "s1", "s1", tmp_path / "mixture.json")) == [
        f"{tmp_path / 's1/0'}: 2 samples"
    ]
    with pytest.raises(ConfigError, match="--mixture goes with --stage"):
        list(run_merge([tmp_path], None, None, tmp_path / "mixture.json"))


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


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '{"streams": []}', '{"streams": {}}', '{"streams": {"a": 1}}',
        '{"streams": [{"folder": 3}]}',
        '{"streams": [{"folder": ""}]}', '{"streams": [{"folder": "0"}], "media_root": 5}', "[" * 100_000, "\udcff",
    ],
    ids=lambda text: ascii(text[:30]),
)  # fmt: skip
def test_a_list_of_streams_that_is_damaged(text, tmp_path):
    (tmp_path / "streams.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for read in (stream_folders, stage_media_root):
        with pytest.raises(DataError, match=r"streams\.json cannot be read") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_stage_knows_its_media(tmp_path):
    (tmp_path / "streams.json").write_text('{"streams": [{"folder": "0"}], "media_root": "../data"}')
    assert stream_folders(tmp_path) == [tmp_path / "0"]
    assert stage_media_root(tmp_path) == tmp_path / "../data"
    (tmp_path / "streams.json").write_text('{"streams": [{"folder": "0"}]}')
    assert stage_media_root(tmp_path) is None
    assert stage_media_root(tmp_path / "elsewhere") is None


KILLED = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from hourllava.data.prepare.mixtures import published_mixture
from hourllava.data.prepare.commands import merge_stage
num_kills, chance, kills = int(sys.argv[1]), random.Random(0), 0
def start(folder):
    child = os.fork()  # after the imports, which take longer than the work
    if child == 0:
        merge_stage(published_mixture(), "s3", Path("parts"), Path(folder))
        os._exit(0)
    return child
def restart():
    shutil.rmtree("killed")
"""


def kill_the_merge(tmp_path, num_kills):
    for part in published_mixture().stage("s3").parts:
        folder = tmp_path / "parts" / part.folder
        with ShardWriter(folder, {"a": "str"}, lengths=True, size_limit_bytes=400) as writer:
            for k in range(60):
                writer.write({"a": f"{part.folder} {k}"}, (1, 1, 1))
        (folder / "lengths.json").write_text('{"questions": "conversation"}')
    done = run_python(KILLED + KILL_LOOP, num_kills, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "whole")) == 2 * 3 + 1


@pytest.mark.slow
def test_merge_killed_and_started_again(tmp_path):
    kill_the_merge(tmp_path, 5)


@pytest.mark.slow
def test_merge_killed_at_thirty_moments(tmp_path):
    kill_the_merge(tmp_path, 30)


def test_lengths_follow_the_index(tmp_path):
    """They are joined if all parts were measured alike, stay if the index does, and go if it changes."""
    for k, settings in enumerate(({"a": 1}, {"a": 1}, {"a": 2}, None)):
        with ShardWriter(tmp_path / str(k), {"a": "str"}, lengths=settings is not None) as writer:
            writer.write({"a": str(k)}, None if settings is None else (k, 1, 1))
        if settings is not None:
            save(tmp_path / str(k) / "lengths.json", settings)

    def merge(*parts):
        list(run_merge([tmp_path / part for part in parts], tmp_path / "out", None, None))
        out = MdsDataset(tmp_path / "out")
        there = (tmp_path / "out" / "lengths.npy").exists()
        return out.lengths()[:, 0].tolist() if there else None, out.lengths_settings()

    assert merge("0", "1") == ([0, 1], {"a": 1})
    assert merge("0", "2") == (None, None)
    assert merge("0", "3") == (None, None)
    save(tmp_path / "out" / "lengths.json", {"a": 5})
    shard_lengths = (tmp_path / "0" / "lengths.npy").read_bytes()
    assert merge("3") == (None, None)
    (tmp_path / "out" / "lengths.npy").write_bytes(shard_lengths)
    save(tmp_path / "out" / "lengths.json", {"a": 5})
    assert merge("3") == ([0], {"a": 5})
