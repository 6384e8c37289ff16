"""The examples run on a video of one minute, and print what they promise."""

import io
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from forking import run_hourllava
from hourllava import Memory
from video.clips import write_clip

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("video") / "minute.mp4", num_frames=60, fps=1)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs an example as `python examples/NAME ARGUMENTS` does, in this process: what it prints."""
    monkeypatch.chdir(tmp_path)

    def run_example(name, *arguments, stdin=""):
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def test_ask_a_video(run, video):
    answer, *moments = run("ask_a_video.py", video, "When is the first graph shown?").splitlines()
    assert answer
    spans = [re.fullmatch(r"(\d+) s to (\d+) s: (\d+)% of the attention", line) for line in moments]
    assert 1 <= len(spans) <= 3
    assert all(0 <= int(span[1]) < int(span[2]) <= 60 for span in spans)
    assert 0 < sum(int(span[3]) for span in spans) <= 100


@pytest.mark.slow
def test_chat_about_a_video(run, video):
    first, *answers, last = run(
        "chat_about_a_video.py", video, stdin="What is shown?\nAnd then?\n\nWhy?\n"
    ).splitlines()
    assert first == "Ask; an empty line ends the conversation."
    assert all(answers)
    assert len(answers) >= 2
    assert last == "2 questions were answered."


def test_many_questions(run, video):
    first, second, day, night, choice = run("many_questions.py", video).splitlines()
    assert re.match(r"What is shown first\? \S", first)
    assert re.match(r"What is shown last\? \S", second)
    shares = {line.split(": ")[0]: int(line.split(": ")[1].rstrip("%")) for line in (day, night)}
    assert 99 <= sum(shares.values()) <= 101
    likelier = max(shares, key=shares.get)
    assert choice == f"The model chooses {'A' if likelier == 'day' else 'B'}: {likelier}."


def test_answers_in_asyncio(run, video):
    lines = run("answers_in_asyncio.py", video).splitlines()
    for person in ("Ada", "Bo"):
        own = [line for line in lines if line.startswith(f"{person} ")]
        *pieces, last = own
        assert pieces
        assert all(line.startswith(f"{person} reads: ") for line in pieces)
        assert re.fullmatch(rf"{person} has \d+ tokens and [1-3] moments\.", last)


@pytest.mark.slow
def test_save_and_load_a_memory(run, video, tmp_path):
    watched = run("save_and_load_a_memory.py", video, "minute.safetensors")
    assert watched.startswith("60 frames, 60 s, ")
    assert Memory.load(tmp_path / "minute.safetensors").num_frames == 60
    assert run("save_and_load_a_memory.py", "gone.mp4", "minute.safetensors") == watched


@pytest.mark.slow
def test_own_training_data(run, video, tmp_path, monkeypatch):
    """Its commands are forked; they are otherwise as the example gives them."""
    complaints = []

    def forked(command, cwd, check):
        assert (command[:3], check) == ([sys.executable, "-m", "hourllava"], True)
        ended = run_hourllava(*command[3:], cwd=Path.cwd() / cwd, cache=tmp_path)
        assert ended.returncode == 0, ended.stderr
        complaints.append(ended.stderr)

    monkeypatch.setattr(subprocess, "run", forked)
    run("own_training_data.py", video, "trained")
    assert re.findall(r"step (\d)/2 \| loss", complaints[-1]) == ["1", "2"]
    assert (tmp_path / "trained/run/final/model.safetensors").is_file()


def test_the_table_names_every_example_and_each_says_how_to_run_it():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert set(re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text())) == names
    for name in names:
        lines = (EXAMPLES / name).read_text().splitlines()
        assert len(lines) < 40, name
        assert any(line.startswith(f"Run it: python examples/{name} ") for line in lines)
