"""The commands, run as a user runs them: what is printed, where, in which form, with which exit code."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hourllava
from cli.in_process import run_here
from conftest import tiny_checkpoint
from forking import environment, run_hourllava, start_hourllava
from hourllava import errors
from running import children_of, is_left
from video.clips import write_clip

DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the documented commands speak of."""
    folder = tmp_path_factory.mktemp("work")
    write_clip(folder / "lecture.mp4", num_frames=60, fps=10)
    (folder / "lecture.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHere is the graph.\n")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(folder, cache, monkeypatch):
    """Runs `hourllava` in this process, in the folder."""
    monkeypatch.chdir(folder)
    for name, value in environment(cache).items():
        monkeypatch.setenv(name, value)
    return run_here


def documented_commands():
    block = re.search(r"```sh\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL).group(1)
    return [line for line in block.splitlines() if line.startswith("hourllava ")]


def test_what_people_read(command):
    """The same commands as in docs/commands.md, without `--json`, on a memory that the first of them saves."""
    assert "6 frames" in command("watch", "lecture.mp4", "--save", "lecture.safetensors")[1]
    assert "seen at" in command("ask", "lecture.safetensors", "What?", "--max-new-tokens", 3)[1]
    assert "seen at" in command("chat", "lecture.safetensors", "--max-new-tokens", 3, stdin=b"What?\n")[1]
    assert "lecture.mp4" in command("cache", "list")[1]
    assert "nano" in command("info")[1]
    assert command("version")[1].split()[-1] == hourllava.__version__


@pytest.mark.slow
def test_the_documented_commands_run(command):
    """In their order: later ones use what earlier ones leave."""
    lines = documented_commands()
    assert len(lines) > 10
    for line in lines:
        arguments = shlex.split(line)[1:]
        if arguments[0] in ("ask", "chat"):
            arguments += ["--max-new-tokens", "4"]
        if arguments[0] == "demo":  # two minutes to watch: any model will do
            arguments += ["--model", tiny_checkpoint()]
        code, output, complaint = command(*arguments, stdin=b"Why?\n")
        assert code == 0, f"{line}: {complaint}"
        assert output, line


def test_json_is_as_documented(command):
    text = DOCUMENT.read_text()
    watched = json.loads(command("watch", "lecture.mp4", "--json")[1])
    asked = json.loads(command("ask", "lecture.mp4", "a?", "b?", "--json", "--max-new-tokens", 3)[1])
    chosen = json.loads(command("ask", "lecture.mp4", "a?", "--option", "x", "--option", "y", "--json")[1])
    chatted = command("chat", "lecture.mp4", "--json", "--max-new-tokens", 3, stdin=b"a?\nb?\n")[1].splitlines()
    info = json.loads(command("info", "--json")[1])
    entries = json.loads(command("cache", "list", "--json")[1])

    def documented(start, end):
        return set(re.findall(r"`([a-z_]+)`", text[text.index(start) : text.index(end)]))

    def printed(*values):
        """Names of all fields, those within lists and objects, too."""
        for value in values:
            if isinstance(value, dict):
                yield from value
                yield from printed(*(value[name] for name in value if name not in ("versions", "models")))
            elif isinstance(value, list):
                yield from printed(*value)

    # Both ways: what is printed is documented, and what is documented is printed.
    gap = {"start_seconds", "end_seconds", "reason"}  # of a damaged video
    assert set(printed(watched)) | gap == documented("`watch --json`", "`ask --json`")
    assert watched["format"] == asked["format"] == info["format"] == 1
    assert (watched["num_frames"], watched["fps"], watched["gaps"]) == (6, 1.0, [])
    answer_fields = documented("`ask --json`", "`chat --json`")
    assert set(printed(asked, chosen)) | {"stop", "length"} == answer_fields
    assert [answer["question"] for answer in asked["answers"]] == ["a?", "b?"]
    assert [json.loads(line)["question"] for line in chatted] == ["a?", "b?"]
    assert set(json.loads(chatted[1])) == set(asked["answers"][0])
    cache_fields = {"folder", "num_memories", "num_bytes", "max_bytes"}
    assert {*printed(info, entries)} - cache_fields | {"num_bytes"} == documented("`info --json`", "(since 1970)")


def run_installed(*arguments, cache, cwd):
    """The installed command, started as a user does."""
    script = Path(sys.executable).with_name("hourllava")
    return subprocess.run([script, *arguments], capture_output=True, text=True, env=environment(cache), cwd=cwd)


@pytest.mark.parametrize("start", [run_hourllava, pytest.param(run_installed, marks=pytest.mark.slow)])
def test_answers_on_stdout_progress_on_stderr(folder, tmp_path, start):
    """Further commands find what the first has left in the cache."""
    command = ("ask", "lecture.mp4", "What?", "--max-new-tokens", "3", "--model", tiny_checkpoint())
    started = start(*command, cache=tmp_path, cwd=folder)
    assert started.returncode == 0, started.stderr
    assert "watching" in started.stderr
    assert "frame/s" in started.stderr
    assert "watching" not in started.stdout
    assert re.search(r"seen at 0:00:0\d-0:00:0\d \(\d+%\)", started.stdout)
    again = run_hourllava(*command, cache=tmp_path, cwd=folder)
    assert "watching" not in again.stderr  # from the cache
    assert again.stdout == started.stdout
    fresh = run_hourllava(*command, "--no-cache", cache=tmp_path / "x", cwd=folder)
    assert fresh.stdout == started.stdout
    assert not (tmp_path / "x").exists()


def test_exit_codes_are_documented():
    rows = re.findall(r"^\| (\d+) \| ", DOCUMENT.read_text(), flags=re.MULTILINE)
    ours = {cls.exit_code for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)}
    assert ours | {0, 130} == {int(row) for row in rows}


def spoil(folder, name):
    """A file that cannot be watched."""
    path = folder / name
    if name == "text.mp4":
        path.write_text("no video at all\n" * 100)
    elif name == "zero.mp4":
        path.touch()
    elif name == "cut.safetensors":
        path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["watch", "missing.mp4"], 3, "missing.mp4"),
        (["watch", "text.mp4"], 3, "no video"),
        (["watch", "zero.mp4"], 3, "zero.mp4"),
        (["ask", "lecture.mp4", ""], 7, "the question is empty"),
        (["ask", "lecture.mp4", "why " * 40000], 7, "the model takes 32768"),
        (["ask", "cut.safetensors", "why?"], 5, "cut short or damaged"),
        (["ask", "missing.safetensors", "why?"], 5, "there is no memory file"),
        (["watch", "lecture.mp4", "--fps", "0"], 2, "fps"),
        (["watch", "lecture.mp4", "--from", "abc"], 2, "'abc' is no time"),
        (["watch", "lecture.mp4", "--from", "1:00:00"], 3, "shows nothing from 3600 s"),
        (["watch", "lecture.mp4", "--model", "no/such-model"], 4, "there is no folder 'no/such-model'"),
        (["watch", "https://example.com/a.mp4"], 3, "network"),
        (["watch", "lecture.mp4", "--save", "nowhere/x.safetensors"], 5, "cannot be written"),
        (["watch", "lecture.mp4", "--device", "nonsense"], 2, "nonsense"),
        (["watch", "lecture.mp4", "--dtype", "float3"], 2, "float3"),
        (["ask", "lecture.mp4", "why?", "--temperature", "-1"], 2, "temperature"),
        (["ask", "lecture.mp4", "why?", "--option", "one"], 7, "2 to 26 options"),
        (["ask", "lecture.mp4", "why?", "--subtitles", "missing.srt"], 6, "missing.srt"),
        (["ask", "lecture.mp4"], 2, "QUESTION"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_mistakes_get_one_clear_line_and_an_exit_code(folder, command, arguments, code, complaint):
    spoil(folder, arguments[1])
    got, output, printed = command(*arguments)
    assert got == code, printed
    assert complaint in printed
    assert "Traceback" not in printed
    assert not output
    if "QUESTION" not in complaint:  # Typer's own complaint shows the usage too
        assert [line for line in printed.splitlines() if "error: " in line] == [printed.splitlines()[-1]]


def hear_ctrl_c():
    """Under nohup and in some CI runners SIGINT is ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


in_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")


@in_proc
def test_ctrl_c_at_the_start(tmp_path):
    """While torch is imported."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hourllava", "watch", write_clip(tmp_path / "clip.mp4", num_frames=10)],
        stdout=subprocess.PIPE,
        env=environment(tmp_path / "cache"),
        preexec_fn=hear_ctrl_c,
    )
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():  # before that, Python may be starting
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, b"")
    assert not (tmp_path / "cache").exists()


@in_proc
@pytest.mark.parametrize("when", ["while watching", pytest.param("while asking", marks=pytest.mark.slow)])
def test_ctrl_c_leaves_nothing_behind(tmp_path, when, local_checkpoint):
    clip = write_clip(tmp_path / "long.mp4", num_frames=10 if when == "while asking" else 600, fps=1)
    # A model that never ends its answer by itself.
    asking = ["ask", clip, "Why?", "--no-cache", "--max-new-tokens", "30000", "--model", local_checkpoint]
    children: set[int] = set()
    with start_hourllava(*(asking if when == "while asking" else ["watch", clip]), cache=tmp_path / "cache") as process:
        if when == "while watching":
            while not children:
                assert process.poll() is None, process.stderr
                time.sleep(0.02)
                children.update(children_of(process.pid))
            time.sleep(0.5)
            children.update(children_of(process.pid))
        else:
            while "| 10/10 [" not in process.stderr:  # all of the video is watched
                assert process.poll() is None, process.stderr
                time.sleep(0.02)
            time.sleep(0.5)  # 30,000 tokens are far from decoded
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "Traceback" not in process.stderr
    assert not list((tmp_path / "cache").rglob("*.safetensors*"))
    assert not any(map(is_left, children))


def test_help_and_version_are_quick_to_import():
    """They do not wait for torch."""
    code = "import sys; import hourllava.cli.main; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
