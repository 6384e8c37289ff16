"""`hourllava eval world` with a small model: files, resuming, baselines, errors."""

import json

import pytest

from conftest import tiny_checkpoint
from hourllava import HourLlava
from hourllava.cli.main import run
from hourllava.data.records.taxonomy import TASKS
from hourllava.errors import ConfigError
from hourllava.evaluation import answering
from hourllava.evaluation.cases import needle_videos, world_cases, world_of
from hourllava.evaluation.command import _needle_settings, run_world_evaluation
from hourllava.evaluation.world import evaluate_world
from hourllava.model.config import MemAugConfig
from hourllava.world.making.make import make_settings

TASKS_ASKED = ("Object Attribute", "Scene Recognition", "Temporal Order", "Event Sequence", "Object Existence")
WORLD = make_settings(2, "0.2", 0, "test", "normal", None, 1, "choice", 64, "reference", tasks=",".join(TASKS_ASKED))


@pytest.fixture(scope="module")
def engine():
    return HourLlava.from_pretrained(str(tiny_checkpoint()))


def lines(out):
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(engine, tmp_path_factory):
    """The folder of an uninterrupted evaluation."""
    out = tmp_path_factory.mktemp("whole") / "out"
    list(evaluate_world(engine, "nano", WORLD, out))
    return out


def test_what_is_left(whole):
    answered = lines(whole)
    assert {one["task"] for one in answered} == set(TASKS_ASKED)
    for one in answered:
        assert set(one["answers"]) == {"video", "frames_only", "blind"}
        assert all(one["right"][condition] == (answer == one["truth"]) for condition, answer in one["answers"].items())
        assert 1 <= len(one["evidence"]) <= 3
    scores = json.loads((whole / "scores.json").read_text())
    assert sum(cells["choice"]["video"]["n"] for cells in scores["task"].values()) == len(answered)
    assert scores["settings"]["videos"]["split"] == "test"
    assert (whole / "tasks-choice.png").read_bytes().startswith(b"\x89PNG")
    assert (whole / "table.md").read_text().count("\n## ") >= 5


def test_a_killed_run_goes_on(engine, whole, tmp_path, monkeypatch, no_figures):
    watched = []
    watch = HourLlava.watch
    monkeypatch.setattr(
        HourLlava, "watch", lambda self, path, **options: watched.append(path) or watch(self, path, **options)
    )
    run = evaluate_world(engine, "nano", WORLD, tmp_path / "out")
    stop_after, ask = 3, answering._ask

    def killed(*arguments):
        nonlocal stop_after
        stop_after -= 1
        if stop_after < 0:
            raise KeyboardInterrupt
        return ask(*arguments)

    monkeypatch.setattr(answering, "_ask", killed)
    with pytest.raises(KeyboardInterrupt):
        list(run)
    monkeypatch.setattr(answering, "_ask", ask)
    assert len(lines(tmp_path / "out")) == 1
    with (tmp_path / "out" / "answers.jsonl").open("a") as file:
        file.write('{"id": "half a li')
    list(evaluate_world(engine, "nano", WORLD, tmp_path / "out"))
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == (whole / "answers.jsonl").read_bytes()
    assert len(watched) == 3  # the first video again, for the rest of its questions
    list(evaluate_world(engine, "nano", WORLD, tmp_path / "out"))
    assert len(watched) == 3  # nothing is left to ask


def test_memories_are_shared_by_models_with_the_same_tower(engine, whole, tmp_path, monkeypatch, no_figures):
    memories = tmp_path / "memories"
    list(evaluate_world(engine, "nano", WORLD, tmp_path / "one", memories=memories))
    assert (tmp_path / "one" / "answers.jsonl").read_bytes() == (whole / "answers.jsonl").read_bytes()
    assert len(list(memories.iterdir())) == WORLD.videos

    monkeypatch.setattr("hourllava.inference.watching.growing.read_frames", None)  # nothing is watched any more
    other = HourLlava.from_pretrained(str(tiny_checkpoint()))
    weight = other.model.lm_head.weight
    weight.data = weight.data.roll(1, 0)
    list(evaluate_world(other, "nano", WORLD, tmp_path / "other", memories=memories))
    assert lines(tmp_path / "other") != lines(whole)


def test_other_weights_are_refused(engine, whole):
    weight = engine.model.lm_head.weight
    before = weight.data.clone()
    try:
        weight.data += 1
        with pytest.raises(ConfigError, match=r"holds a run with other settings \(evaluation.json\)"):
            list(evaluate_world(engine, "nano", WORLD, whole))
    finally:
        weight.data.copy_(before)


def test_a_folder_of_world_make_is_asked_about(whole, tmp_path):
    assert world_of(whole / "world") == WORLD
    with pytest.raises(ConfigError, match="holds no world"):
        world_of(tmp_path)


def test_all_tasks_are_asked(tmp_path):
    settings = make_settings(3, "5", 0, "test", "normal", None, 1, "both", 64, "reference")
    rows = [row for case in world_cases(settings, tmp_path / "world") for row in case.questions]
    assert {(row.task, row.format) for row in rows} == {(task, form) for task in TASKS for form in ("open", "choice")}


def test_needles_lie_at_all_depths(engine, tmp_path):
    settings = _needle_settings(4, "1,2", 0, "both")
    cases = list(needle_videos(settings, tmp_path / "needles"))
    depths = [case.questions[0].evidence[0][0] / case.questions[0].duration_seconds for case in cases]
    assert depths == pytest.approx([0.125, 0.375, 0.625, 0.875] * 2, abs=0.03)
    settings = settings.model_copy(update={"lengths_seconds": (60,), "num_depths": 2})
    list(evaluate_world(engine, "nano", settings, tmp_path / "out", baselines=False))
    answered = lines(tmp_path / "out")
    assert [one["format"] for one in answered] == ["open", "choice"] * 2
    assert all(set(one["answers"]) == {"video"} and one["template"] == "letter_colour" for one in answered)
    assert (tmp_path / "out" / "needles.png").exists()


OPTIONS = {
    "videos": 1, "minutes": "1", "per_task": 1, "seed": 0, "formats": "both",
    "container": "reference", "world": None, "needles": False, "baselines": True, "memory_share": 1.0,
    "forgetting": None, "memories": None, "device": None, "dtype": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"forgetting": "all"}, "--forgetting is 'all'; use one of: uniform, random, keyframe, question"),
        ({"needles": True, "minutes": "3-60"}, "--minutes is '3-60'; with --needles use one or more lengths"),
        ({"needles": True, "minutes": "0.5"}, "needle video of 30 seconds"),
        ({"needles": True, "formats": "all"}, "--formats is 'all'"),
        ({"container": "avi"}, "--container is 'avi'"),
        ({"memory_share": 2.0}, "memory_share is 2; use 0"),
        ({"memory_share": 0.5, "forgetting": "question"}, "memory_share below 1"),
    ],
)
def test_what_cannot_be_asked(changes, words, tmp_path):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        list(run_world_evaluation(tmp_path / "out", model=str(tiny_checkpoint()), **OPTIONS | changes))


def test_errors_are_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr("sys.argv", ["hourllava", "eval", "world", "--out", str(tmp_path), "--minutes", "1"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: {tmp_path} is not empty and holds no run to continue; use a new or empty folder"]


def test_forgetting_by_the_question_is_refused_where_kept_tokens_are_the_same_for_all(engine, tmp_path, monkeypatch):
    before = engine.model.config.forgetting
    monkeypatch.setattr(engine.model.config, "memaug", MemAugConfig(recall="question"))
    with pytest.raises(ConfigError, match="chooses others for each"):
        list(evaluate_world(engine, "nano", WORLD, tmp_path / "out", forgetting="question"))
    assert engine.model.config.forgetting == before
