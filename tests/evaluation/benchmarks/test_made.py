"""Benchmarks that are made here: the frozen release, needles, their tasks for lmms-eval."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cli.in_process import error_line, run_here
from conftest import tiny_checkpoint
from evaluation.benchmarks.answers import answered, write_run
from evaluation.benchmarks.harness import PYTHON, run_harness
from hourllava.choices import choice_prompt
from hourllava.evaluation.benchmarks import made, marathonworld_1, needles
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.made import make_part
from hourllava.evaluation.benchmarks.marathonworld_1 import SPLITS, digest_of, frozen, videos_of
from hourllava.evaluation.benchmarks.raw import DataSummary
from hourllava.evaluation.benchmarks.scoring import scores_of
from hourllava.world.script import GENERATOR

SMALL = "dev-1min"


def test_a_small_part_is_that_of_the_release():
    assert digest_of(SMALL) == frozen()["parts"][SMALL]
    assert frozen()["generator"] == GENERATOR


@pytest.mark.slow
@pytest.mark.parametrize("part", sorted({part for parts in SPLITS.values() for part in parts} - {SMALL}))
def test_every_part_is_that_of_the_release(part):
    assert digest_of(part) == frozen()["parts"][part]


def test_parts_share_no_video():
    seeds = [made.reference.seed for part in ("dev-1min", "1min") for made in videos_of(part)]
    assert len(set(seeds)) == len(seeds) == 50


def test_the_release_says_what_it_holds():
    parts = frozen()["parts"]
    assert parts.keys() == {part for some in SPLITS.values() for part in some}
    assert marathonworld_1.BENCHMARK.counts["test"] == (2718, 130)
    for split, some in SPLITS.items():
        assert marathonworld_1.BENCHMARK.counts[split][1] == sum(parts[part]["videos"] for part in some)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A data folder with the first two videos of a part of the release."""
    data = tmp_path_factory.mktemp("data") / "mw"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marathonworld_1, "check_part", lambda part: None)
        patch.setattr(marathonworld_1, "videos_of", lambda part: list(videos_of(part))[:2])
        patch.setitem(SPLITS, "dev", (SMALL,))
        marathonworld_1.make(data, "dev")
    return data


def test_another_generator_cannot_make_the_release(tmp_path, monkeypatch):
    monkeypatch.setattr(marathonworld_1, "GENERATOR", "other")
    ended = run_here("eval", "make", "marathonworld-1", tmp_path / "data", "--split", "dev")
    assert ended.code == 6
    assert "would make other videos or questions than marathonworld-1 (dev-1min)" in error_line(ended)
    assert not (tmp_path / "data").exists()


def test_a_run_makes_what_it_needs(two, tmp_path, monkeypatch):
    monkeypatch.setitem(SPLITS, "dev", (SMALL,))
    blind = ["--model", tiny_checkpoint(), "--device", "cpu", "--protocol", "likelihood", "--condition", "blind"]
    ended = run_here("eval", "marathonworld-1", two, "--out", tmp_path / "out", *blind, "--split", "dev", "--limit", 1)
    assert ended.code == 0, ended.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "raw.jsonl").read_text().splitlines()]
    assert len(lines) == len(next(iter(videos_of(SMALL))).questions)
    assert {line["question"]["file"] for line in lines} == {f"videos/marathonworld-1-{SMALL}-000.world.json"}
    assert {line["question"]["groups"]["length"][0] for line in lines} == {"1 min"}
    monkeypatch.setattr(needles.make, "__defaults__", ((60,), 2, 0, "reference", 1))
    ended = run_here("eval", "needles", tmp_path / "made", "--out", tmp_path / "o", *blind)
    assert ended.code == 0, ended.stderr
    scores = json.loads((tmp_path / "o" / "scores.json").read_text())
    assert list(scores["axes"]["depth"]) == ["20-30 %", "70-80 %"]


def test_the_map_of_needles_is_drawn(tmp_path, figure):
    needles.make(tmp_path / "data", (60, 120), 2)
    table = needles.read(DataFolder(tmp_path / "data"), "all")
    answers = [answered(question, "ABCD"[k % 4]) for k, question in enumerate(table.questions)]
    out = write_run(tmp_path / "run", "needles", answers)
    assert run_here("eval", "score", out).code == 0
    assert (out / "needles.png").stat().st_size > 1000


def test_files_for_other_programs_take_the_place_of_references(tmp_path):
    data = tmp_path / "data"
    needles.make(data, (60,), 1)
    needles.make(data, (60,), 1, container="mp4")
    assert [path.name for path in (data / "videos").iterdir()] == ["needle-0-000.mp4"]
    needles.make(data, (60,), 1)  # a reference is not needed where a file is
    assert [path.name for path in (data / "videos").iterdir()] == ["needle-0-000.mp4"]
    table = needles.read(DataFolder(data), "all")
    assert [question.file for question in table.questions] == ["videos/needle-0-000.mp4"]


def test_making_resumes(tmp_path, monkeypatch):
    videos = list(videos_of(SMALL))[:3]
    written = []
    write = made.write_reference

    def stops(reference, path):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write(reference, path)

    monkeypatch.setattr(made, "write_reference", stops)
    with pytest.raises(KeyboardInterrupt):
        make_part(tmp_path, SMALL, videos, "reference")
    assert not (tmp_path / "questions" / f"{SMALL}.jsonl").exists()
    written.clear()
    make_part(tmp_path, SMALL, videos, "reference")
    assert written == [f"{videos[2].name}.world.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["video-mme", "x"], "video-mme is not made but downloaded"),
        (["marathonworld-1", "x", "--minutes", "1"], "--minutes is for needles"),
        (["marathonworld-1", "x", "--container", "avi"], "--container is 'avi'; use one of: reference, mp4, webm"),
        (["marathonworld-1", "x", "--split", "y"], "--split is 'y'; MarathonWorld 1 has: test, dev, needles"),
        (["needles", "x", "--minutes", "0.5"], "--minutes is '0.5'; use numbers from 1 to 1440"),
        (["needles", "x", "--minutes", "a"], "--minutes is 'a'"),
        (["needles", "x", "--split", "all"], "--split is for marathonworld-1"),
    ],
)
def test_options_of_making(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    ended = run_here("eval", "make", *arguments)
    assert (ended.code, words in error_line(ended)) == (2, True), ended.stderr
    assert not Path("x").exists()


def test_the_task_for_lmms_eval_names_its_files(two):
    text = (two / "lmms_eval" / "marathonworld_1_dev.yaml").read_text()
    task = yaml.load(text.replace("!function ", ""), yaml.SafeLoader)
    assert task["dataset_kwargs"]["data_files"]["test"] == [str(two / "questions" / f"{SMALL}.jsonl")]
    assert (two / "lmms_eval" / "utils.py").is_file()
    compile((two / "lmms_eval" / "utils.py").read_text(), "utils.py", "exec")


@pytest.mark.slow
def test_genuine_lmms_eval_gives_the_answers_of_our_runner(two, tmp_path, monkeypatch):
    """The task that `eval make` writes, run by lmms-eval with our model, on references."""
    monkeypatch.setitem(SPLITS, "dev", (SMALL,))
    out, home = tmp_path / "ours", tmp_path / "home"
    home.mkdir()
    options = ["--out", out, "--model", "nano", "--device", "cpu", "--split", "dev"]
    assert run_here("eval", "marathonworld-1", two, *options).code == 0
    assert subprocess.run([PYTHON, "-c", "import lmms_eval"], check=False).returncode == 0, (
        "make .venv-lmms-eval/.ready"
    )
    task = "marathonworld_1_dev"
    run = run_harness(home, two / "lmms_eval", tmp_path / "theirs", [task], "model=nano,device=cpu")
    lines = [json.loads(line) for line in (out / "raw.jsonl").read_text().splitlines()]
    lines.sort(key=lambda line: line["question"]["place"])
    for line, sample in zip(lines, run.samples[task], strict=True):
        question = line["question"]
        assert sample["input"] == line["prompt"] == choice_prompt(question["question"], question["options"])
        assert sample["filtered_resps"] == line["output"]
    scores = json.loads((out / "scores.json").read_text())
    assert run.results[task]["accuracy,none"] == pytest.approx(100 * scores["headline"]["accuracy"], rel=1e-14)


def test_tenths_of_a_video_are_shown_from_its_start():
    totals = {"depth": {"60-70 %": 1, "0-10 %": 2, "90-100 %": 3}, "length": {"30 min": 4, "1 min": 2}}
    summary = DataSummary(
        annotations=(), num_questions=6, num_videos=6, left_out={}, totals=totals, notes=()
    )  # fmt: skip
    axes = scores_of(marathonworld_1.BENCHMARK, [], summary)["axes"]
    assert list(axes["depth"]) == ["0-10 %", "60-70 %", "90-100 %"]
    assert list(axes["length"]) == ["30 min", "1 min"]  # as the files have them
