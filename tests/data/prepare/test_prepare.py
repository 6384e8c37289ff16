"""`data prepare`: from raw files to what a trainer reads, for all three stages, in one command each."""

import json
import math
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import tiny_checkpoint
from data.kill_loop import KILL_LOOP
from data.mixed_world import NUM_CLIPS, NUM_PAIRS, NUM_PICTURES, NUM_TEXTS, save, turns
from data.shard_rows import contents
from forking import run_python
from hourllava.cli.main import app
from hourllava.data.batches.amounts import Stream
from hourllava.data.batches.cost import estimate_costs
from hourllava.data.batches.lengths import load_processor
from hourllava.data.batches.loader import planned_loader
from hourllava.data.batches.plan import BatchPlan, PlanSettings
from hourllava.data.batches.samples import RowEncoder
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.prepare.commands import stream_folders
from hourllava.data.prepare.mixtures import read_mixture
from hourllava.data.prepare.stage import PrepareSettings, prepare_stage
from hourllava.errors import ConfigError, DataError, PartlyDoneError

MODEL = str(tiny_checkpoint())
SHARDS = Path("VideoMarathon/sharding")


@pytest.fixture(scope="module")
def processor():
    return load_processor(MODEL)


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """The data folder after the one command for each stage, and what the commands said."""
    root = tmp_path_factory.mktemp("prepared") / "data"
    shutil.copytree(raw, root)
    return root, {stage: run(root, stage) for stage in ("s1", "s2", "s3")}


def run(root, stage, *options, is_whole=True):
    arguments = ["data", "prepare", "--stage", stage, "--root", root, "--mixture", root / "mixture.json"]
    arguments += ["--model", MODEL, "--devices", "cpu", "--decoders", 2, "--processes", 1, *options]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert is_whole == (result.exit_code == 0), (result.output, result.exception)
    assert is_whole or isinstance(result.exception, PartlyDoneError)
    return result.stdout


def streams_of(root, stage):
    return [MdsDataset(folder) for folder in stream_folders(root / SHARDS / f"hourllava_{stage}")]


def records_of(root, data_set):
    return json.loads((root / data_set / "jsons/videomarathon.json").read_text())


def test_stages_hold_what_their_mixture_says(prepared):
    root, said = prepared
    ids = {stage: [[row["text"]["id"] for row in dataset] for dataset in streams_of(root, stage)] for stage in said}
    assert ids["s1"] == [[f"p{k}" for part in range(3) for k in range(part, NUM_PICTURES, 3)]]
    references = sum(name.startswith("marathonworld/") for name in ids["s2"][0])
    assert Counter(name[0] for name in ids["s2"][0]) == {"p": 3, "m": 2 + references, "t": 3, "c": 2}
    assert references == math.ceil(math.ceil(len(records_of(root, "World")) / 3) / 5)  # of three questions each
    first, second = ids["s3"]
    clips, pairs, texts = (
        [f"{letter}{k}" for k in range(part, number, 3)]
        for letter, part, number in (("c", 1, NUM_CLIPS), ("m", 1, NUM_PAIRS), ("t", 1, NUM_TEXTS))
    )
    halves = [name for stream in (first, second) for name in stream if name[0] == "p"]
    assert sorted(halves) == [f"p{k}" for k in range(1, NUM_PICTURES, 3)]
    assert [name for name in first if name[0] != "p"] == [*clips, "c2", *pairs, *texts]
    # The world's file has a question a record; they come together by five, and half of those records is taken.
    questions = Counter(record["video"] for record in records_of(root, "VideoMarathon"))
    num_records = sum(math.ceil(count / 5) for count in questions.values())
    world = [name for name in second if name.startswith("marathonworld/")]
    assert len(world) == len(set(world)) == math.ceil(num_records / 2)
    for stage, datasets in ids.items():
        assert [f"{len(stream)} samples" in said[stage] for stream in datasets] == [True] * len(datasets)


def test_stage_2_reads_videos_and_stage_3_features(prepared):
    root, _ = prepared
    videos = {stage: [row["video"] for dataset in streams_of(root, stage) for row in dataset if "video" in row]
              for stage in ("s2", "s3")}  # fmt: skip
    clips = ["LLaVA-Video-178K/s/0.mp4", "LLaVA-Video-178K/s/3.mp4"]
    assert [name for name in videos["s2"] if not name.endswith(".world.json")] == clips
    assert set(videos["s2"]) - set(clips) == {"World/videos/marathonworld/train-1-00000.world.json"}
    assert {Path(name).suffix for name in videos["s3"]} == {".safetensors"}
    assert all((root / name).is_file() for stage in videos.values() for name in stage)
    features = {path.relative_to(root).as_posix() for path in root.rglob("features/**/*.safetensors")}
    assert features == set(videos["s3"])  # no others were made
    assert {name.split("/")[0] for name in features} == {"VideoMarathon", "LLaVA-Video-178K"}


@pytest.mark.parametrize("questions", ["conversation", "segments"])
@pytest.mark.parametrize("stage", ["s1", "s2", "s3"])
def test_every_sample_arrives(prepared, processor, stage, questions, tmp_path):
    root, _ = prepared
    folder = root / SHARDS / f"hourllava_{stage}"
    if questions == "segments":  # the lengths beside the streams are of the other kind
        shutil.copytree(root / SHARDS, tmp_path / "sharding")
        folder = tmp_path / "sharding" / f"hourllava_{stage}"
        arguments = [folder, "--model", MODEL, "--media", root, "--questions", questions, "--processes", 1]
        result = CliRunner().invoke(app, ["data", "lengths", *map(str, arguments)])
        assert result.exit_code == 0, result.output
    encode = RowEncoder(processor, root, questions=questions)
    streams, sources, num_questions = [], [], 0
    for name in stream_folders(folder):
        dataset = MdsDataset(name)
        assert dataset.lengths_settings() == encode.settings
        lengths = dataset.lengths()
        costs = estimate_costs(lengths, processor.config, is_video=stage != "s1").total
        streams.append(Stream(name.name, lengths, costs))
        sources.append(dataset)
        for row in dataset:
            is_split = questions == "segments" and (row["text"].get("image") or "video" in row)
            num_questions += len(row["text"]["conversations"]) // 2 if is_split else 1
    longest = max(int(stream.lengths[:, 1:].sum(axis=1).max()) for stream in streams)
    plan = BatchPlan(streams, PlanSettings(token_budget=max(4096, longest), micro_batches_per_step=2))
    loader = planned_loader(
        plan, sources, encode, processor.collate_packed, ledger_folder=tmp_path / "failures", num_workers=1
    )
    segments = [length for batch in loader for length in batch["segments"].lengths]
    assert not (tmp_path / "failures").exists()
    promised = sum(int(stream.lengths[:, 1:].sum()) for stream in streams)
    if questions == "conversation":  # an empty micro-batch is one token
        segments = [length for length in segments if length > 1]
    assert len(segments) == num_questions
    assert 0.99 * promised <= sum(segments) <= promised


def test_the_list_of_streams_leads_to_the_media(prepared):
    root, _ = prepared
    folder = root / SHARDS / "hourllava_s3"
    listing = json.loads((folder / "streams.json").read_text())
    assert [stream["folder"] for stream in listing["streams"]] == ["0", "1"]
    assert (folder / listing["media_root"]).resolve() == root.resolve()


def test_run_again_changes_nothing(prepared, tmp_path):
    root, said = prepared
    before = contents(root)
    for stage, lines in said.items():
        again = run(root, stage)
        assert [line for line in again.splitlines() if not line.startswith("features:")] == [
            line for line in lines.splitlines() if not line.startswith("features:")
        ]
    assert "0 videos made" in again
    assert contents(root) == before


def own_mixture(root, files, *, kind="image", questions_per_record=None):
    source = {"kind": kind, "media": "m", "questions_per_record": questions_per_record, "files": files}
    stages = {"s1": {"streams": {"0": ["own_part0"]}}}
    path = root / "own.json"
    path.write_text(json.dumps({"parts": 1, "sources": {"own": source}, "stages": stages}))
    return read_mixture(path)


def prepare(root, mixture):
    return list(prepare_stage(PrepareSettings("s1", root, root / "out", mixture)))


def ids_of(root):
    return [row["text"]["id"] for row in MdsDataset(root / "out/hourllava_s1/0")]


def films(root, names):
    """Records of one question each about films of their own, which are there."""
    (root / "m").mkdir(exist_ok=True)
    for name in names:
        (root / "m" / f"{name}.mp4").write_bytes(b"film")
    return [{"id": name, "video": f"{name}.mp4", "conversations": turns(f"{name}?")} for name in names]


def test_files_that_differ_in_their_ending_are_two(tmp_path):
    save(tmp_path / "part.json", films(tmp_path, "ab"))
    save(tmp_path / "part.jsonl", films(tmp_path, "cd"))
    files = {"part.json": "all", "part.jsonl": "all"}
    prepare(tmp_path, own_mixture(tmp_path, files, kind="video", questions_per_record=5))
    rows = list(MdsDataset(tmp_path / "out/hourllava_s1/0"))
    assert sorted(row["video"] for row in rows) == [f"m/{name}.mp4" for name in "abcd"]
    assert {row["text"]["source"] for row in rows} == {"part"}


@pytest.mark.parametrize("questions_per_record", [None, 5])
def test_a_changed_file_of_equal_size_and_date_is_refused(questions_per_record, tmp_path):
    path = tmp_path / "a.json"
    save(path, films(tmp_path, "ab"))
    mixture = own_mixture(tmp_path, {"a.json": "all"}, kind="video", questions_per_record=questions_per_record)
    said, times = prepare(tmp_path, mixture), path.stat()
    assert prepare(tmp_path, mixture) == said
    path.write_text(path.read_text().replace('"yes"', '"not"'))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match="holds shards of other records or settings"):
        prepare(tmp_path, mixture)
    shutil.rmtree(tmp_path / "out" / "own_part0")
    prepare(tmp_path, mixture)
    assert {row["text"]["conversations"][1]["value"] for row in MdsDataset(tmp_path / "out/hourllava_s1/0")} == {"not"}


def test_a_root_told_in_two_ways_is_one(tmp_path, monkeypatch):
    save(tmp_path / "a.json", films(tmp_path, "ab"))
    prepare(tmp_path, own_mixture(tmp_path, {"a.json": "all"}, kind="video"))
    before = contents(tmp_path / "out" / "own_part0")
    monkeypatch.chdir(tmp_path)
    prepare(Path(), read_mixture(Path("own.json")))
    assert contents(tmp_path / "out" / "own_part0") == before


def test_a_file_that_is_not_grouped_is_told_each_time(tmp_path):
    records = films(tmp_path, "abc")
    records[1]["conversations"] += turns("And then?", marks=0)
    save(tmp_path / "a.json", records)
    mixture = own_mixture(tmp_path, {"a.json": "all"}, kind="video", questions_per_record=5)
    for _ in range(2):
        (line,) = [line for line in prepare(tmp_path, mixture) if "not grouped" in line]
        assert line == (
            "records: a.json: not grouped by 5: 1 of its records ask several questions, record 2 is the first"
        )


def test_a_stage_without_a_sample_is_an_error(tmp_path):
    save(tmp_path / "a.json", [{"id": "a", "video": "gone.mp4", "conversations": turns("?")}])
    mixture = own_mixture(tmp_path, {"a.json": "all"}, kind="video")
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"stream 0 of stage s1 holds no sample: 1 records .*; why: .*skipped\.jsonl"
        ):
            prepare(tmp_path, mixture)


def test_what_cannot_be_used_is_left_out_and_counted(raw, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(raw, root)
    pictures = json.loads((root / "LLaVA-OneVision/jsons/pictures.json").read_text())
    (root / "LLaVA-OneVision/images/not.jpg").write_text("<html>404</html>")
    pictures += [
        pictures[0],  # again
        {"id": "gone", "image": "images/gone.jpg", "conversations": turns("?")},
        {"id": "not", "image": "images/not.jpg", "conversations": turns("?")},
        {"id": "no answer", "image": "images/0.jpg", "conversations": turns("?")[:1]},
        {"id": "unmarked", "image": "images/0.jpg", "conversations": turns("Unmarked?", marks=0)},
        {"image": "images/2.jpg", "conversations": turns("Without an id?")},
    ]
    save(root / "LLaVA-OneVision/jsons/pictures.json", pictures)
    said = run(root, "s1", is_whole=False)
    (dataset,) = streams_of(root, "s1")
    assert sorted(row["text"]["id"] for row in dataset) == sorted(
        [f"p{k}" for k in range(NUM_PICTURES)] + ["unmarked", f"#{NUM_PICTURES + 6}"]
    )
    assert f"records: {NUM_PICTURES + 6} in 1 files, 2 left out, 2 changed" in said
    assert "2 records left out" in said
    named = [Path(line.split(": ", 1)[1]) for line in said.splitlines() if line.startswith("why left out")]
    lines = [line for path in named for file in ([path] if path.is_file() else path.rglob("*.ledger.jsonl"))
             for line in file.read_text().splitlines()]  # fmt: skip
    assert len(lines) == 6
    for words in (
        "the same record again",
        "wrong turn order",
        "images/gone.jpg is missing",
        "images/not.jpg is not an",
    ):
        assert any(words in line for line in lines), words


def test_a_stage_without_samples_is_an_error_after_the_lines(raw, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(raw, root)
    shutil.rmtree(root / "LLaVA-OneVision/images")
    arguments = ["data", "prepare", "--stage", "s1", "--root", root, "--mixture", root / "mixture.json"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, DataError)
    assert f"holds no sample: {NUM_PICTURES} records were left out of the shards" in str(result.exception)
    assert "skipped.jsonl" in str(result.exception)


def test_videos_lie_in_their_sources_folders(raw, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(raw, root)
    shutil.move(root / "LLaVA-Video-178K/s", root / "LLaVA-Video-178K/panda")
    clips = [
        {"id": f"c{k}", "data_source": "panda", "video": f"{k}.mp4", "conversations": turns(f"Clip {k}?")}
        for k in range(NUM_CLIPS)
    ]
    save(root / "LLaVA-Video-178K/jsons/clips.jsonl", clips)
    said = run(root, "s3")
    assert "0 records left out" in said
    names = {row["video"] for dataset in streams_of(root, "s3") for row in dataset if "video" in row}
    assert {name for name in names if name.startswith("LLaVA")} == {
        f"LLaVA-Video-178K/features/panda/{k}.safetensors" for k in (1, 2)
    }  # fmt: skip
    for name in names:
        assert (root / name).is_file()
    shutil.rmtree(root / SHARDS)
    shutil.rmtree(root / "LLaVA-Video-178K/panda")  # features that are there need no video
    assert "0 records left out" in run(root, "s3")


def test_videos_that_cannot_be_read_are_left_out_of_stage_3(raw, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(raw, root)
    (root / "LLaVA-Video-178K/s/1.mp4").write_bytes(b"no video" * 100)
    (root / "LLaVA-Video-178K/s/2.mp4").unlink()
    said = run(root, "s3", is_whole=False)
    assert "features: LLaVA-Video-178K/features: 0 videos made (0 frames, 0.0 frames/s), 0 kept, 2 failed" in said
    assert "2 records left out" in said
    assert "LLaVA-Video-178K/features/failures-0-of-1.jsonl" in said
    names = [row["video"] for dataset in streams_of(root, "s3") for row in dataset if "video" in row]
    assert {name.split("/")[0] for name in names} == {"VideoMarathon"}


def test_features_that_are_there_need_neither_videos_nor_model(prepared, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(prepared[0], root)
    shutil.rmtree(root / SHARDS)
    shutil.rmtree(root / "VideoMarathon/videos")
    settings = PrepareSettings("s3", root, root / SHARDS, read_mixture(root / "mixture.json"))
    lines = list(prepare_stage(settings))
    assert "features: none made without --model; those that are there are used" in lines
    assert not list((root / SHARDS).rglob("lengths.*"))
    for ours, whole in zip(streams_of(root, "s3"), streams_of(prepared[0], "s3"), strict=True):
        assert [row["text"]["id"] for row in ours] == [row["text"]["id"] for row in whole]
    assert "0 videos made" in run(root, "s3")  # nor does a model want the videos


def test_verify_says_which_shard_is_damaged(prepared, tmp_path):
    shutil.copytree(prepared[0] / SHARDS, tmp_path / "sharding")
    folder = tmp_path / "sharding" / "hourllava_s3"
    result = CliRunner().invoke(app, ["data", "verify", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("all shards are whole") == 2
    shard = tmp_path / "sharding/clips_part1/0/shard.00000.mds"
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    result = CliRunner().invoke(app, ["data", "verify", str(folder)])
    assert isinstance(result.exception, PartlyDoneError)
    assert "shard.00000.mds has sha1" in str(result.exception)
    (folder / "0" / "lengths.npy").write_bytes(b"")
    shutil.copy(prepared[0] / SHARDS / "clips_part1/0/shard.00000.mds", shard)
    result = CliRunner().invoke(app, ["data", "verify", str(folder)])
    assert "lengths.npy cannot be read" in str(result.exception)


def test_options_and_files_that_do_not_fit(raw, tmp_path):
    mixture = read_mixture(raw / "mixture.json")
    with pytest.raises(ConfigError, match="allowed: s1, s2, s3"):
        PrepareSettings("s4", raw, tmp_path, mixture)
    with pytest.raises(ConfigError, match="--video-suffix"):
        PrepareSettings("s3", raw, tmp_path, mixture, video_suffix=".npy")
    with pytest.raises(ConfigError, match="--questions"):
        PrepareSettings("s3", raw, tmp_path, mixture, questions="each")
    with pytest.raises(DataError, match=r"4 record files of stage s2 .*videomarathon\.json; `hourllava data sources"):
        list(prepare_stage(PrepareSettings("s2", tmp_path, tmp_path / "out", _without(mixture, "clips"))))
    (tmp_path / "file").touch()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "records").touch()
    for out in (tmp_path / "file" / "out", tmp_path / "held"):
        with pytest.raises(DataError, match=r"cannot be used: .*; free space, or choose") as caught:
            list(prepare_stage(PrepareSettings("s1", raw, out, mixture)))
        assert "\n" not in str(caught.value)


def _without(mixture, source):
    stage = mixture.stages["s2"]
    streams = {name: tuple(part for part in parts if part.source != source) for name, parts in stage.streams.items()}
    return mixture.model_copy(update={"stages": {"s2": stage.model_copy(update={"streams": streams})}})


KILLED = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import torch
import hourllava.data.prepare.stage as prepare
from hourllava.data.prepare.mixtures import read_mixture
import transformers.models.siglip.modeling_siglip
torch.set_num_threads(1)
stage, num_kills = sys.argv[1], int(sys.argv[2])
chance, kills = random.Random(stage), 0
def start(folder):
    child = os.fork()  # after the imports, which take longer than the work
    if child == 0:
        os.chdir(folder)
        root = Path("data")
        mixture = read_mixture(root / "mixture.json")
        out = root / "VideoMarathon" / "sharding"
        settings = prepare.PrepareSettings(stage, root, out, mixture, sys.argv[3], devices="cpu", decoders=1)
        list(prepare.prepare_stage(settings))
        os._exit(0)
    return child
def restart():
    shutil.rmtree("killed")
    shutil.copytree("raw", "killed")
"""


def check_kills(raw, tmp_path, stage, num_kills):
    """Kill `data prepare` at random moments, each time going on; the end is that of a run left alone."""
    for name in ("raw", "whole", "killed"):
        shutil.copytree(raw, tmp_path / name / "data")
    done = run_python(KILLED + KILL_LOOP, stage, num_kills, MODEL, cwd=tmp_path, timeout=3600)
    assert done.returncode == 0, done.stderr
    whole, killed = (contents(tmp_path / name) for name in ("whole", "killed"))
    assert killed.keys() == whole.keys()
    assert [name for name, data in whole.items() if killed[name] != data] == []


@pytest.mark.slow
def test_killed_and_started_again(raw, tmp_path):
    check_kills(raw, tmp_path, "s3", 2)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["s1", "s2", "s3"])
def test_killed_at_thirty_moments(raw, tmp_path, stage):
    check_kills(raw, tmp_path, stage, 30)
