"""Runs of all benchmarks with a tiny model: files, resuming after kills, shards, failures, subtitles, exit codes."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.in_process import Ended, error_line, run_here
from conftest import tiny_checkpoint
from data.kill_loop import KILL_LOOP
from evaluation.benchmarks.miniatures import HUB_MINIATURES, MINIATURES, put_json, put_srt, put_video
from forking import run_python
from hourllava.cli.eval.benchmark import MADE_TITLES, TITLES
from hourllava.errors import InputError
from hourllava.evaluation.benchmarks import asking, command, runner
from hourllava.evaluation.benchmarks.catalogue import BENCHMARKS
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.encoder import weights_digest
from hourllava.inference.questions.prompt import PromptMaker


@pytest.fixture(autouse=True, scope="module")
def short_answers():
    """Four tokens do: the tiny model says nothing that a rule could read."""
    stream = HourLlava.stream

    def short(self, memory, question, **options):
        return stream(self, memory, question, **options | {"max_new_tokens": min(4, options["max_new_tokens"])})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HourLlava, "stream", short)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A function that gives the folder of a miniature, which tests must leave as it is."""
    made = {}

    def folder(name, miniatures=MINIATURES):
        key = name, miniatures is MINIATURES
        if key not in made:
            made[key] = miniatures[name](tmp_path_factory.mktemp("data") / name)
        return made[key]

    return folder


def run(name, root, out, *options):
    return run_here("eval", name, root, "--out", out, "--model", tiny_checkpoint(), "--device", "cpu", *options)


class Run(NamedTuple):
    """A run that was never stopped."""

    ended: Ended
    out: Path
    watched: list[str]  # videos, in their order


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Callable[[str], Run]:
    """A function that gives the run of a miniature, whose folder tests must leave as it is."""
    runs = {}
    watch = HourLlava.watch

    def run_of(name):
        if name not in runs:
            out, watched = tmp_path_factory.mktemp("finished") / "out", []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    HourLlava, "watch", lambda self, path, **some: watched.append(path) or watch(self, path, **some)
                )
                runs[name] = Run(run(name, data(name), out), out, watched)
        return runs[name]

    return run_of


def raw(out):
    """What the model answered, without the time it took."""
    lines = [json.loads(line) for path in sorted(out.glob("raw*.jsonl")) for line in path.read_text().splitlines()]
    lines.sort(key=lambda line: line["question"]["place"])
    return [
        {key: value for key, value in line.items() if not key.endswith("k_seconds") and key != "watch_seconds"}
        for line in lines
    ]


def test_every_benchmark_has_its_command():
    assert (TITLES | MADE_TITLES).keys() == BENCHMARKS.keys()


# (questions that are answered, in the files, exit code)
RUNS = {
    "video-mme": (10, 13, 9), "tempcompass": (11, 11, 0), "longvideobench": (3, 4, 9), "lvbench": (4, 5, 9),
    "mlvu": (7, 7, 0), "egoschema": (3, 3, 0), "cg-bench": (3, 3, 0), "hourvideo": (3, 3, 9),
    "marathonworld": (8, 8, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_miniature_runs_from_end_to_end(name, finished, tmp_path):
    ended = finished(name).ended
    shutil.copytree(finished(name).out, tmp_path / "out")
    num_answered, num_questions, code = RUNS[name]
    assert ended.code == code, ended.stderr
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["counts"]["answered"] == num_answered
    assert scores["counts"]["in_files"] == num_questions
    answers = raw(tmp_path / "out")
    assert len(answers) == num_answered
    benchmark = BENCHMARKS[name]
    for line in answers:
        assert line["prompt"]
        assert 1 <= len(line["evidence"]) <= 3
        assert line["num_frames"] >= 2
        assert line["fps"] == 1.0
    assert (tmp_path / "out" / "table.md").read_text().startswith(f"# {benchmark.title}: ")
    assert "questions scored. Guessing an option would have " in ended.stdout.splitlines()[-1]
    failed = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert len(failed) == num_questions - num_answered
    again = run_here("eval", "score", tmp_path / "out")
    assert again.code == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """(the engine of nano, a folder of its memories): the short videos are few, and each is watched once."""
    with HourLlava.from_pretrained("nano", device="cpu") as engine:
        yield engine, tmp_path_factory.mktemp("memories")


@pytest.mark.parametrize("name", RUNS)
def test_nano_answers_the_first_video_of_each_miniature(name, data, nano, tmp_path, monkeypatch):
    engine, memories = nano
    monkeypatch.setattr(HourLlava, "from_pretrained", lambda *arguments, **options: engine)
    out = tmp_path / "out"
    ended = run_here("eval", name, data(name), "--out", out, "--limit", 1, "--memories", memories)
    assert ended.code in (0, 9), ended.stderr  # 9: a row of HourVideo's cannot be read
    answers = raw(out)
    scores = json.loads((out / "scores.json").read_text())
    assert scores["counts"]["answered"] == len(answers) > 0
    assert scores["settings"]["weights"] == weights_digest(engine.model)
    for line in answers:
        assert line["output"].isprintable()
        assert line["num_new_tokens"] > 0
    if name == "marathonworld":  # nano was trained on such videos, and half of the questions are about colours
        assert scores["axes"]["all"]["all"]["right"] >= 1


@pytest.mark.parametrize("name", HUB_MINIATURES)
def test_the_hubs_files_run_too(name, data, tmp_path):
    ended = run(name, data(name, HUB_MINIATURES), tmp_path / "out", "--limit", 1, "--protocol", "likelihood")
    assert ended.code == 0, ended.stderr
    answers = raw(tmp_path / "out")
    assert answers
    for line in answers:
        assert line["output"] in "ABCDE"
        assert len(line["log_probabilities"]) == len(line["question"]["options"])


def test_a_clip_and_a_prefix_are_watched_in_part(data, tmp_path):
    for protocol, watched in (("official", (2, 2.0)), ("lmms-eval-0.7.2", (3, 3.0))):  # lmms-eval watches all of a file
        run("longvideobench", data("longvideobench"), tmp_path / protocol, "--limit", 1, "--protocol", protocol)
        (line,) = raw(tmp_path / protocol)
        assert (line["num_frames"], line["duration_seconds"]) == watched
    run("hourvideo", data("hourvideo"), tmp_path / "hour")
    assert {line["question"]["id"]: line["num_frames"] for line in raw(tmp_path / "hour")} == {
        "q1": 4,
        "q2": 2,
        "q5": 4,
    }


class TestSubtitles:
    """Prompts with subtitles, by every protocol that has them."""

    @pytest.mark.parametrize(
        ("name", "protocol", "words"),
        [
            ("video-mme", "official", "This video's subtitles are listed below:\nGood day.\n"),
            ("video-mme", "lmms-eval-0.7.2", "listed below: \nGood day.\nThis is Ann.\n"),
            ("longvideobench", "official", "go\nQuestion: "),
            ("longvideobench", "lmms-eval-0.3", "<image>\ngo\n<image>\n"),
            ("cg-bench", "lmms-eval-0.7.2", "listed below:\nHere I am.\nAt home.\n"),
        ],
    )
    def test_they_are_in_the_prompt(self, data, tmp_path, name, protocol, words):
        limit = 2 if name == "video-mme" else 1
        run(name, data(name), tmp_path / "out", "--subtitles", "--protocol", protocol, "--limit", limit)
        told = [line for line in raw(tmp_path / "out") if line["had_subtitles"]]
        assert told
        assert all(words in line["prompt"] for line in told)
        table = (tmp_path / "out" / "table.md").read_text()
        assert f"| subtitles | yes; {len(told)} of {len(raw(tmp_path / 'out'))} prompts have some |" in table

    def test_likelihood_chooses_them_by_evidence(self, data, tmp_path, monkeypatch):
        seen = []
        choose = HourLlava.choose
        monkeypatch.setattr(
            HourLlava, "choose",
            lambda self, *args, subtitles, **options: seen.append(subtitles) or choose(self, *args, **options),
        )  # fmt: skip
        run(
            "longvideobench",
            data("longvideobench"),
            tmp_path / "out",
            "--subtitles",
            "--protocol",
            "likelihood",
            "--limit",
            1,
        )
        assert [[cue.text for cue in cues] for cues in seen] == [["go"]]

    @pytest.mark.parametrize("change", ["missing", pytest.param("damaged", marks=pytest.mark.slow)])
    def test_lost_ones_are_said_and_the_question_is_not_asked(self, tmp_path, change):
        root = MINIATURES["video-mme"](tmp_path / "data")
        path = root / "subtitle" / "-AAAAAAAAA3.srt"
        path.unlink()
        if change == "damaged":
            path.write_text("1\n00:00 --> 00:01\nx\n")
        ended = run("video-mme", root, tmp_path / "out", "--subtitles")
        assert ended.code == 9
        failed = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
        reasons = {line["video"]: line["reason"] for line in failed}
        assert reasons.keys() == {"-AAAAAAAAA3", "AAAAAAAAAA4"}
        assert ("are missing" if change == "missing" else "are no times") in reasons["-AAAAAAAAA3"]
        if change == "missing":
            put_srt(path, [(0.0, 2.0, "mended")])
            assert run("video-mme", root, tmp_path / "out", "--subtitles").code == 9  # one video is still missing
            assert len(raw(tmp_path / "out")) == 10

    def test_videos_that_never_had_any_are_asked_without(self, data, tmp_path):
        run("video-mme", data("video-mme"), tmp_path / "out", "--subtitles", "--limit", 1)
        for line in raw(tmp_path / "out"):
            assert "listed below: \nNo subtitles available\n" in line["prompt"]
            assert not line["had_subtitles"]

    def test_none_at_all_is_an_error_before_the_model_is_loaded(self, tmp_path):
        root = MINIATURES["video-mme"](tmp_path / "data")
        shutil.rmtree(root / "subtitle")
        ended = run_here("eval", "video-mme", root, "--out", tmp_path / "out", "--model", "nowhere", "--subtitles")
        assert ended.code == 6
        assert "no subtitle file of Video-MME is below" in error_line(ended)
        ended = run_here("eval", "mlvu", MINIATURES["mlvu"](tmp_path / "m"), "--out", tmp_path / "o", "--subtitles")
        assert (ended.code, error_line(ended)) == (2, "MLVU has no subtitles; omit --subtitles")


class TestFailures:
    """A video that is missing or damaged, a question that is too long: said, counted, exit code 9."""

    def test_missing_and_damaged_videos_are_asked_about_when_they_are_mended(self, tmp_path):
        root = MINIATURES["egoschema"](tmp_path / "data")
        answers = json.loads((root / "subset_answers.json").read_text())
        put_json(root / "subset_answers.json", {**answers, "aaaaaaaa-0003": 1})  # its video is missing
        (root / "videos" / "aaaaaaaa-0000.mp4").write_bytes(b"no video" * 200)
        ended = run("egoschema", root, tmp_path / "out")
        assert ended.code == 9
        assert error_line(ended).startswith("2 of 4 questions, about 2 videos, could not be asked and are listed in ")
        failed = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
        reasons = [line["reason"] for line in failed]
        assert "aaaaaaaa-0000.mp4" in reasons[0]
        assert reasons[1] == "the video aaaaaaaa-0003 is missing"
        table = (tmp_path / "out" / "table.md").read_text()
        assert "- 2 answered, about 2 videos; 2 not answered" in table
        assert "- 1 of these could not be asked: the video aaaaaaaa-0003 is missing" in table
        put_video(root / "videos" / "aaaaaaaa-0000.mp4")
        put_video(root / "videos" / "aaaaaaaa-0003.mp4")
        assert run("egoschema", root, tmp_path / "out").code == 0
        assert len(raw(tmp_path / "out")) == 4

    @pytest.mark.parametrize(
        ("protocol", "long", "others"),
        [
            ("lmms-eval-0.7.2", 0, ["2", "3"]),
            pytest.param("lmms-eval-0.7.2", 1, ["1", "3"], marks=pytest.mark.slow),
            pytest.param("likelihood", 0, ["2", "3"], marks=pytest.mark.slow),
            ("likelihood", 1, ["1", "3"]),
        ],
    )
    def test_one_long_question_does_not_cost_the_others_of_its_video(
        self, tmp_path, monkeypatch, protocol, long, others
    ):
        prompt = PromptMaker.prompt

        def refuses_long_ones(self, ready, question, *arguments):
            if len(question) > 1000:
                raise InputError("the model takes less")
            return prompt(self, ready, question, *arguments)

        monkeypatch.setattr(PromptMaker, "prompt", refuses_long_ones)
        root = MINIATURES["cg-bench"](tmp_path / "data")
        rows = json.loads((root / "cgbench_mini.json").read_text())
        rows[long]["question"] = "long " * 1000
        put_json(root / "cgbench_mini.json", rows)
        assert run("cg-bench", root, tmp_path / "out", "--protocol", protocol).code == 9
        assert [line["question"]["id"] for line in raw(tmp_path / "out")] == others
        assert "the model takes" in (tmp_path / "out" / "failures.jsonl").read_text()

    def test_nothing_could_be_asked(self, tmp_path):
        root = MINIATURES["egoschema"](tmp_path / "data")
        for path in (root / "videos").iterdir():
            path.write_bytes(b"no video" * 200)
        ended = run("egoschema", root, tmp_path / "out")
        assert ended.code == 3
        assert error_line(ended).startswith("3 of 3 questions, about 3 videos, could not be asked")
        shutil.rmtree(root / "videos")
        ended = run_here("eval", "egoschema", root, "--out", tmp_path / "o", "--model", "nowhere")
        assert ended.code == 6
        assert error_line(ended).startswith("none of the 3 videos of EgoSchema is below ")


def same_results(one, other):
    assert raw(one) == raw(other)
    assert (one / "table.md").read_text() == (other / "table.md").read_text()
    assert json.loads((one / "scores.json").read_text()) == json.loads((other / "scores.json").read_text())


@pytest.fixture(scope="module")
def whole(finished):
    """The folder of a run that was never stopped."""
    return finished("video-mme").out


class TestResuming:
    """Stopped anywhere and started again, a run gives the same results."""

    def test_killed_twenty_times(self, data, whole, tmp_path, monkeypatch):
        """Each attempt gets at most one answer further, and leaves half a line."""
        out, memories = tmp_path / "out", tmp_path / "memories"
        monkeypatch.setattr(asking, "QUESTIONS_AT_ONCE", 1)
        ask_together = asking.ask_together
        allowed = 0

        def killed(*arguments):
            nonlocal allowed
            allowed -= 1
            if allowed < 0:
                raise KeyboardInterrupt
            return ask_together(*arguments)

        monkeypatch.setattr(asking, "ask_together", killed)
        for attempt in range(20):
            allowed = attempt % 2 if attempt < 19 else 0
            ended = run("video-mme", data("video-mme"), out, "--memories", memories)
            assert ended.code == 130
            assert not (out / "scores.json").exists()
            with (out / "raw.jsonl").open("a") as file:
                file.write('{"question": {"id": "half a li')
        assert len(raw_lines(out)) == 9
        allowed = 1000
        assert run("video-mme", data("video-mme"), out, "--memories", memories).code == 9
        same_results(out, whole)
        assert len(list(memories.iterdir())) == 3

    def test_a_finished_run_watches_nothing_again(self, data, whole, tmp_path, monkeypatch):
        shutil.copytree(whole, tmp_path / "out")
        monkeypatch.setattr(HourLlava, "watch", None)
        assert run("video-mme", data("video-mme"), tmp_path / "out").code == 9
        same_results(tmp_path / "out", whole)

    def test_each_video_is_watched_once(self, finished):
        _, out, watched = finished("video-mme")
        assert len(watched) == len(set(watched)) == 3
        assert {(line["question"]["video"]) for line in raw(out)} == {Path(path).stem for path in watched}

    def test_shards_give_the_results_of_one_run(self, data, whole, tmp_path):
        ended = [run("video-mme", data("video-mme"), tmp_path / "out", "--shard", f"{k}/3") for k in range(3)]
        assert [one.code for one in ended] == [9, 0, 0]  # the missing video is in the first part
        assert "questions are answered so far; when all shards have ended: hourllava eval score" in ended[1].stdout
        assert run_here("eval", "score", tmp_path / "out").code == 0
        same_results(tmp_path / "out", whole)

    def test_a_part_of_the_videos_and_then_the_rest(self, data, whole, tmp_path):
        assert run("video-mme", data("video-mme"), tmp_path / "out", "--limit", 1).code == 0
        assert len(raw(tmp_path / "out")) == 4
        assert "4 answered, about 1 videos; 9 not answered" in (tmp_path / "out" / "table.md").read_text()
        run("video-mme", data("video-mme"), tmp_path / "out")
        same_results(tmp_path / "out", whole)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--protocol", "official"], "protocol 'lmms-eval-0.7.2' there, 'official' now"),
            (["--subtitles"], "subtitles False there, True now"),
        ],
    )
    def test_other_settings_are_refused(self, data, whole, options, words):
        ended = run("video-mme", data("video-mme"), whole, *options)
        assert ended.code == 2
        assert words in error_line(ended)

    def test_a_folder_with_something_else_is_refused(self, data, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        ended = run("egoschema", data("egoschema"), tmp_path)
        assert (ended.code, "is not empty and holds no run to continue" in ended.stderr) == (2, True)


def raw_lines(out):
    return [line for line in (out / "raw.jsonl").read_text().splitlines() if line.endswith("}")]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--protocol", "x"], 2, "--protocol is 'x'; MLVU has: lmms-eval-0.7.2, lmms-eval-0.3, official, likelihood"),
        (["--split", "x"], 2, "--split is 'x'; MLVU has: dev, test"),
        (["--split", "test"], 6, "holds no questions of mlvu (test)"),
        (["--shard", "2/2"], 2, "--shard is '2/2'; use k/N"),
        (["--limit", 0], 2, "--limit is 0; use 1 to"),
    ],
)
def test_options_are_checked_before_the_model_is_loaded(data, tmp_path, options, code, words):
    ended = run_here("eval", "mlvu", data("mlvu"), "--out", tmp_path / "out", "--model", "nowhere", *options)
    assert ended.code == code
    assert words in error_line(ended)
    assert not (tmp_path / "out").exists()


def test_captions_are_not_asked_by_likelihood(data, tmp_path):
    ended = run("tempcompass", data("tempcompass"), tmp_path / "out", "--protocol", "likelihood")
    assert ended.code == 0
    assert len(raw(tmp_path / "out")) == 10
    assert f"- 1 more are left out: {runner.NEEDS_OPTIONS}" in (tmp_path / "out" / "table.md").read_text()


KILLED = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from hourllava import HourLlava
from hourllava.errors import PartlyDoneError
from hourllava.evaluation.benchmarks import command
num_kills, chance, kills, data, model = int(sys.argv[1]), random.Random(0), 0, Path(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
engine = HourLlava.from_pretrained(model, device="cpu")
HourLlava.from_pretrained = lambda *args, **options: engine
def start(folder):
    child = os.fork()  # after the imports, which take longer than the work
    if child == 0:
        engine._process = engine._watcher._process = os.getpid()
        try:
            options = command.RunOptions(model="tiny", subtitles=True)
            for line in command.run_benchmark("video-mme", data, Path(folder), options):
                print(line)
        except PartlyDoneError:
            os._exit(0)
        os._exit(1)
    return child
def restart():
    shutil.rmtree("killed")
"""


@pytest.mark.slow
def test_killed_at_twenty_moments(data, tmp_path):
    """As a user or a cluster kills: with SIGKILL, at random moments, decoding included."""
    done = run_python(KILLED + KILL_LOOP, 20, data("video-mme"), tiny_checkpoint(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_results(tmp_path / "killed", tmp_path / "whole")
    assert len(raw(tmp_path / "whole")) == 10


def test_ray_must_be_there(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = run("egoschema", data("egoschema"), tmp_path / "out", "--engine", "ray")
    assert (ended.code, "pip install 'hourllava[ray]'" in error_line(ended)) == (2, True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_a_ray_cluster_gives_the_results_of_one_process(data, tmp_path, monkeypatch):
    """Parts are answered by actors, written here, and resumed; a worker that is lost ends the run with a line."""
    ray = pytest.importorskip("ray")
    alone, out, how = tmp_path / "alone", tmp_path / "out", ("--protocol", "likelihood")
    assert run("video-mme", data("video-mme"), alone, *how).code == 9  # a video is missing
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    try:
        ended = run("video-mme", data("video-mme"), out, *how, "--engine", "ray", "--limit", 2)
        assert ended.code == 0, ended.stderr
        assert len(raw(out)) == 7
        assert run("video-mme", data("video-mme"), out, *how, "--engine", "ray").code == 9
        same_results(out, alone)
        plan = command.WorkerPlan
        monkeypatch.setattr(
            command, "WorkerPlan", lambda *fields: dataclasses.replace(plan(*fields), protocol="nonsense")
        )
        ended = run("egoschema", data("egoschema"), tmp_path / "lost", "--engine", "ray")
        assert ended.code == 6
        assert "a worker of the Ray cluster ended (KeyError: 'nonsense'); run again" in error_line(ended)
    finally:
        ray.shutdown()
