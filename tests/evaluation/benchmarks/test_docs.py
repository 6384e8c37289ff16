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

DOC = (Path(__file__).parents[3] / "docs" / "public-benchmarks.md").read_text(encoding="utf-8")


def table_below(heading):
    """The rows of the first table below a heading, as lists of cells; without the head."""
    section = DOC[DOC.index(f"\n{heading}\n") :]
    lines = re.search(r"(?:^\|.*\|\n)+", section, flags=re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MINIATURES["video-mme"](tmp_path / "data" / "Video-MME")
    commands = [
        line for block in re.findall(r"^```sh\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE) for line in block.splitlines()
    ]
    assert len(commands) == 5
    for command in commands:
        arguments = shlex.split(command.replace("--model nano", f"--model {tiny_checkpoint()} --device cpu"))[1:]
        ended = run_here(*arguments)
        # The miniature lacks a video, and what of its subtitles there should be.
        assert ended.code == (0 if arguments[1] == "score" else 9), (command, ended.stderr)
    promised = re.findall(r"^OUT/([\w.]+)", DOC, flags=re.MULTILINE)
    assert len(promised) == 7
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


@pytest.mark.parametrize("name", ["video-mme", "longvideobench", "cg-bench"])
def test_the_benchmarks_with_subtitles_are_named(name):
    benchmark = find_benchmark(name)
    assert benchmark.title in DOC[DOC.index("\n## Subtitles\n") :].partition("| protocol |")[0]
    others = [one for one in BENCHMARKS.values() if any(p.said and not p.is_likelihood for p in one.protocols.values())]
    assert benchmark in others
    assert len(others) == 3
