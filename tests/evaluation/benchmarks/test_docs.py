"""docs/public-benchmarks.md: its commands run, and its tables say what the code does."""

import re
import shlex
from pathlib import Path

import pytest

from cli.in_process import run_here
from conftest import tiny_checkpoint
from evaluation.benchmarks.miniatures import MINIATURES
from evaluation.benchmarks.test_letters import RULES
from hourllava.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark
from hourllava.evaluation.benchmarks.export.command import FORMS
from hourllava.evaluation.benchmarks.marathonworld_1 import SPLITS, frozen

DOCS = Path(__file__).parents[3] / "docs"
DOC = (DOCS / "public-benchmarks.md").read_text(encoding="utf-8")
OTHERS = (DOCS / "other-harnesses.md").read_text(encoding="utf-8")


def table_below(heading):
    """The rows of the first table below a heading, as lists of cells; without the head."""
    section = DOC[DOC.index(f"\n{heading}\n") :]
    lines = re.search(r"(?:^\|.*\|\n)+", section, flags=re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def commands_of(document):
    """The commands of its `sh` blocks; those of benchmarks that are made here come apart."""
    blocks = re.findall(r"^```sh\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if "/video-mme" in line.lower()], [
        line for line in lines if "/video-mme" not in line.lower()
    ]


@pytest.mark.slow
def test_the_commands_for_benchmarks_that_are_made_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, commands = commands_of(DOC)
    assert len(commands) == 5
    for command in commands:
        more = ["--device", "cpu"] if "--model" in command else []
        ended = run_here(*shlex.split(command)[1:], *more)
        assert ended.code == 0, (command, ended.stderr)


def test_the_commands_run(tmp_path, monkeypatch, figure):
    monkeypatch.chdir(tmp_path)
    MINIATURES["video-mme"](tmp_path / "data" / "Video-MME")
    commands = [*commands_of(DOC)[0], *commands_of(OTHERS)[0]]
    assert len(commands) == 6
    for command in commands:
        arguments = shlex.split(command.replace("--model nano", f"--model {tiny_checkpoint()} --device cpu"))[1:]
        ended = run_here(*arguments)
        # The miniature lacks a video, and what of its subtitles there should be.
        assert ended.code == (0 if arguments[1] in ("score", "export") else 9), (command, ended.stderr)
    promised = re.findall(r"^OUT/([\w.]+)", DOC, flags=re.MULTILINE)
    assert len(promised) == 8
    for name in promised:
        assert (tmp_path / "out" / "video-mme" / name).exists(), name
    assert "## This run minus the other run" in (tmp_path / "out" / "compared" / "table.md").read_text()


def test_letters_are_read_as_the_table_says():
    names = ("new", "old", "vlmevalkit", "longvideobench", "lvbench")
    rows = table_below("## Reading a letter")
    assert len(rows) > 8
    for texts, *letters in rows:
        for text in re.findall(r"`([^`]+)`", texts):
            for name, letter in zip(names, letters, strict=True):
                assert RULES[name](text) == ("" if letter in ("-", "drawn") else letter), (text, name)


def test_every_benchmark_is_there_with_its_numbers():
    rows = {row[0].strip("`"): row for row in table_below("## What each benchmark needs")}
    assert rows.keys() == BENCHMARKS.keys()
    for name, (_, files, splits, numbers) in rows.items():
        benchmark = find_benchmark(name)
        for split in benchmark.splits:
            assert split in splits, (name, split)
        for questions, videos in benchmark.counts.values():
            assert f"{questions:,}" in numbers
            assert videos is None or f"{videos:,}" in numbers
        assert files


def test_the_advice_is_the_commands_own():
    titles = {benchmark.title: benchmark for benchmark in BENCHMARKS.values()}
    rows = table_below("### Which one to quote")
    assert {row[0] for row in rows} == titles.keys() - {"MarathonWorld"}
    for title, quoted, _ in rows:
        for protocol in re.findall(r"`([^`]+)`", quoted):
            assert protocol in titles[title].protocols
            assert protocol in titles[title].advice


def test_every_protocol_is_explained():
    explained = {row[0].strip("`") for row in table_below("## Protocols")}
    assert explained == {name for benchmark in BENCHMARKS.values() for name in benchmark.protocols}


def test_the_parts_of_the_release_are_told():
    rows = {row[0].strip("`"): row for row in table_below("## MarathonWorld 1")}
    parts = frozen()["parts"]
    for part in SPLITS["test"]:
        assert rows[part][1].startswith(f"{parts[part]['videos']} of ")
        assert rows[part][2] == f"{parts[part]['questions']}"
    assert rows["needles"][2] == str(parts["needles"]["questions"])


def test_the_forms_of_exports_are_told():
    section = OTHERS[OTHERS.index("\n## Export\n") :]
    told = re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)
    assert tuple(told) == FORMS


@pytest.mark.parametrize("name", ["video-mme", "longvideobench", "cg-bench"])
def test_the_benchmarks_with_subtitles_are_named(name):
    benchmark = find_benchmark(name)
    assert benchmark.title in DOC[DOC.index("\n## Subtitles\n") :].partition("| protocol |")[0]
    others = [one for one in BENCHMARKS.values() if any(p.said and not p.is_likelihood for p in one.protocols.values())]
    assert benchmark in others
    assert len(others) == 3
