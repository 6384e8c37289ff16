"""Genuine lmms-eval 0.7.3 with our model: the same prompts, the same raw outputs, and the same scores, as our runner.

Needs the environment of `make .venv-lmms-eval/.ready`, which `make test-slow` makes.
"""

import json
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from cli.in_process import run_here
from conftest import tiny_checkpoint
from evaluation.benchmarks.answers import answered, asked, write_run
from evaluation.benchmarks.harness import PYTHON, ROOT, TASKS, link_media, prepare, run_harness, write_tasks
from evaluation.benchmarks.judges import judge_server

PROTOCOL = "lmms-eval-0.7.2"
NAMES = [task.name for task in TASKS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(folder of the miniatures, $HF_HOME, folder of the tasks, variables)"""
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} is missing; run: make {PYTHON.parents[1].name}/.ready")
    root = tmp_path_factory.mktemp("harness")
    for name in dict.fromkeys(task.benchmark for task in TASKS):
        prepare(name, root / "data")
    (root / "home").mkdir()
    link_media(root / "data", root / "home")
    found = [PYTHON, "-c", "import importlib.util as u; print(u.find_spec('lmms_eval').submodule_search_locations[0])"]
    shipped = Path(subprocess.run(found, capture_output=True, text=True, check=True).stdout.strip())
    write_tasks(root / "data", root / "tasks", shipped / "tasks")
    variables = {
        "CGBENCH_VIDEO_DIR": str(root / "data" / "cg-bench" / "cg_videos_720p"),
        "CGBENCH_SUBTITLE_DIR": str(root / "data" / "cg-bench" / "cg_subtitles"),
        "OPENAI_API_KEY": "none",
    }
    return root / "data", root / "home", root / "tasks", variables


def verdict(prompt):
    """A judge that answers what the request's length decides, so that both harnesses get the same verdicts."""
    if "video description" in prompt:
        return "Reasoning: it says so.\nAnswer: B. emptying"
    words = "".join(prompt.split())  # not its blanks
    return "Correct" if sum(words.encode()) % 2 else "Incorrect"


def ours(task, data, out, judge):
    """(raw answers in the order of the rows, scores) of our own runner."""
    more = ["--judge", judge.url] if task.benchmark == "tempcompass" else []
    ended = run_here(
        "eval", task.benchmark, data / task.benchmark, "--out", out, "--model", "nano", "--device", "cpu",
        "--protocol", PROTOCOL, *task.options, *more,
    )  # fmt: skip
    assert ended.code == 0, ended.stderr
    lines = [json.loads(line) for line in (out / "raw.jsonl").read_text().splitlines()]
    lines.sort(key=lambda line: line["question"]["place"])
    return lines, json.loads((out / "scores.json").read_text())


def score_of(task, scores):
    """Our figure in place of the task's metric."""
    cell = scores["headline"] if task.group is None else scores["axes"][task.group[0]][task.group[1]]
    return cell["accuracy"] * (100 if task.is_percent else 1)


@pytest.mark.slow
def test_the_same_outputs_and_the_same_scores(folders, tmp_path):
    """Tasks that draw options for unreadable answers are run alone: lmms-eval has one stream of random numbers."""
    data, home, tasks, variables = folders
    with judge_server() as judge:
        judge.reply = verdict
        variables = variables | {"OPENAI_API_URL": f"{judge.url}/chat/completions"}
        drawing = [task.name for task in TASKS if task.benchmark in ("longvideobench", "egoschema")]
        groups = [[name for name in NAMES if name not in drawing], *([name] for name in drawing)]
        runs = {}
        for k, names in enumerate(groups):
            runs |= dict.fromkeys(
                names,
                run_harness(
                    home, tasks, tmp_path / str(k), names, "model=nano,device=cpu",
                    "--process_docs_parallel", "1", environment=variables,
                ),
            )  # fmt: skip
        asked_by_harness = Counter(request["messages"][-1]["content"] for request in judge.requests)
        judge.requests.clear()
        for task in TASKS:
            lines, scores = ours(task, data, tmp_path / task.name, judge)
            samples = runs[task.name].samples[task.name]
            if task.group is not None:
                axis, group = task.group
                lines = [line for line in lines if group in line["question"]["groups"][axis]]
            assert len(samples) == len(lines)
            for line, sample in zip(lines, samples):
                assert line["prompt"] == sample["input"], task.name
                assert line["output"] == sample["filtered_resps"], task.name
                assert line["num_new_tokens"] == sample["token_counts"][0]["output_tokens"]
            metric = runs[task.name].results[task.name][f"{task.metric},none"]
            assert score_of(task, scores) == pytest.approx(metric, rel=1e-14, abs=0), task.name
            if task.benchmark == "tempcompass":
                for aspect, cell in scores["axes"]["aspect"].items():
                    kind, _, dim = aspect.partition(": ")
                    if kind == task.group[1]:
                        harness = runs[task.name].results[task.name][f"{dim}_accuracy,none"]
                        assert 100 * cell["accuracy"] == pytest.approx(harness, rel=1e-14, abs=0)
        # Our client keeps replies, so it asks each question once.
        assert {request["messages"][-1]["content"] for request in judge.requests} == asked_by_harness.keys()
        assert len(asked_by_harness) >= 4


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one(folders, tmp_path):
    _, home, tasks, variables = folders
    names = ["videomme_local", "lvbench_local"]
    arguments = f"model={tiny_checkpoint()},device=cpu,memories={tmp_path / 'memories'}"
    alone = run_harness(home, tasks, tmp_path / "alone", names, arguments, environment=variables)
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    arguments = f"model={tiny_checkpoint()},device=cpu"
    together = run_harness(home, tasks, tmp_path / "together", names, arguments, environment=variables, prefix=launch)
    for name in names:
        assert [one["filtered_resps"] for one in together.samples[name]] == [
            one["filtered_resps"] for one in alone.samples[name]
        ]
        assert together.results[name] == alone.results[name]


@pytest.mark.slow
def test_lmms_eval_reads_exported_samples(tmp_path):
    """As `--baseline` does, to compare another model with ours."""
    questions = [asked(k, "ABCD"[k % 4], groups={"duration": ("long",)}) for k in range(8)]
    answers = [answered(question, ("A", "B.", "no letter")[k % 3]) for k, question in enumerate(questions)]
    out = write_run(tmp_path / "run", "video-mme", answers)
    assert run_here("eval", "export", out, "--form", "lmms-eval").code == 0
    path = out / "export" / "lmms-eval" / "hourllava_samples_videomme.jsonl"
    code = (
        "import json, sys; from lmms_eval.baselines.loader import load_baseline; "
        "scores, results = load_baseline(sys.argv[1], 'videomme'); "
        "print(json.dumps([scores, results['results']['videomme']]))"
    )
    done = subprocess.run([PYTHON, "-c", code, path], capture_output=True, text=True, check=True)
    scores, results = json.loads(done.stdout.splitlines()[-1])
    right = [answer.output[0] == question.gold for answer, question in zip(answers, questions)]
    assert scores == {str(k): float(hit) for k, hit in enumerate(right)}
    assert results["videomme_perception_score,none"] == 100 * sum(right) / len(right)


@pytest.mark.slow
def test_the_simple_class_gives_the_same(folders, tmp_path):
    _, home, tasks, variables = folders
    runs = [
        run_harness(
            home, tasks, tmp_path / str(k), ["lvbench_local"], f"model={tiny_checkpoint()},device=cpu", *more,
            environment=variables,
        )
        for k, more in enumerate(((), ("--force_simple",)))
    ]  # fmt: skip
    assert runs[0].samples["lvbench_local"] == runs[1].samples["lvbench_local"]


def test_the_recipe_of_the_docs_is_that_of_the_tests():
    """The docs name the packages that the Makefile installs, and the entry point is there."""
    wanted = (ROOT / "lmms-eval-requirements.txt").read_text(encoding="utf-8").split()
    recipe = (ROOT / "docs" / "other-harnesses.md").read_text(encoding="utf-8")
    told = re.search(r"^\.venv-lmms-eval/bin/pip install (.*'filelock<4'.*)$", recipe, re.MULTILINE)
    assert told is not None
    assert set(told[1].replace("'", "").split()) - {"hourllava[world]"} == set(wanted)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"hourllava": "hourllava.evaluation.lmms_eval:manifest"}
