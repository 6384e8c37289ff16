"""`ask` and `chat` with input as terminals and pipes give it."""

import json

import pytest

from cli.in_process import run_here
from forking import environment
from video.clips import write_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    write_clip(folder / "clip.mp4", num_frames=30, fps=10)
    late = [7 + n / 10 for n in range(30)]
    write_clip(folder / "late.mkv", num_frames=30, fps=10, times=late, audio=True)
    (folder / "russian.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nПривет, мир\n".encode("cp1251"))
    return folder


@pytest.fixture
def command(folder, monkeypatch):
    """Runs `hourllava` in this process, in the folder."""
    monkeypatch.chdir(folder)
    for name, value in environment(folder / "cache").items():
        monkeypatch.setenv(name, value)
    return run_here


@pytest.mark.parametrize("bad", [b"caf\xe9?", b"\xff", b"half a letter \xe2\x82", b"\xed\xa0\x80?"])
def test_bytes_that_are_no_text_cost_characters_and_not_the_answer(command, bad):
    code, output, complaint = command(
        "ask", "clip.mp4", bad.decode("utf-8", "surrogateescape"), "b?", "--max-new-tokens", "2"
    )
    assert code == 0, complaint
    assert "\ufffd" in output
    code, output, complaint = command("chat", "clip.mp4", "--max-new-tokens", "2", "--json", stdin=bad + b"\nand?\n")
    assert code == 0, complaint
    first, second = map(json.loads, output.splitlines())
    assert "\ufffd" in first["question"]
    assert second["question"] == "and?"


def test_a_question_that_cannot_be_asked_does_not_end_the_conversation(command):
    stdin = b"a?\n" + b"why " * 40000 + b"\nb?\n"
    code, output, complaint = command("chat", "clip.mp4", "--max-new-tokens", "2", "--json", stdin=stdin)
    assert code == 7
    assert [json.loads(line)["question"] for line in output.splitlines()] == ["a?", "b?"]
    assert "the model takes 32768" in complaint
    assert complaint.splitlines()[-1] == "error: 1 questions could not be asked; the others are answered"


def test_chat_without_standard_input(command):
    code, _, complaint = command("chat", "clip.mp4", stdin=None)
    assert (code, complaint.count("\n")) == (7, 1)
    assert "standard input is closed" in complaint


def test_subtitles_of_a_named_encoding(command):
    ask = ("ask", "clip.mp4", "What?", "--max-new-tokens", "2", "--subtitles", "russian.srt")
    code, _, complaint = command(*ask)
    assert code == 6
    assert "--subtitles-encoding" in complaint
    assert command(*ask, "--subtitles-encoding", "windows-1251")[0] == 0
    code, _, complaint = command(*ask, "--subtitles-encoding", "klingon")
    assert code == 2
    assert "klingon" in complaint


def test_times_are_the_players(command):
    watched = json.loads(command("watch", "late.mkv", "--json")[1])
    assert watched["start_seconds"] == pytest.approx(7, abs=0.05)
    asked = json.loads(command("ask", "late.mkv", "What?", "--json", "--max-new-tokens", "2")[1])
    assert all(6.9 < span["start_seconds"] < 10.2 for span in asked["answers"][0]["evidence"])
    part = json.loads(command("watch", "late.mkv", "--from", "8", "--to", "9", "--json")[1])
    assert (part["num_frames"], part["start_seconds"]) == (1, pytest.approx(8, abs=0.05))
