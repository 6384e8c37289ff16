"""Exit codes: 0 if all is done, 9 if some items failed and the rest is done, the fault's own if nothing could be done.

Every command that works on many items is tried with sound items, with some that are not, and with none that is.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from cli.in_process import error_line, run_here
from conftest import tiny_checkpoint
from hourllava import errors, plotting
from hourllava.data.mds.writer import ShardWriter
from hourllava.inference.memories.cache import MemoryCache
from video.clips import write_clip

DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"
PARTLY = errors.PartlyDoneError.exit_code
DATA, VIDEO, MEMORY = errors.DataError.exit_code, errors.VideoError.exit_code, errors.MemoryFileError.exit_code


def run(*arguments):
    """(exit code, the error's line or the output)"""
    ended = run_here(*arguments)
    return ended.code, error_line(ended) if ended.code else ended.stdout


def turns(question="What is it?", answer="A dot."):
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]


def record(name, **changes):
    return {"id": name, "data_source": "s", "video": f"{name}.mp4", "conversations": turns()} | changes


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "sound.mp4", num_frames=20, fps=10)


@pytest.fixture
def folder(tmp_path, monkeypatch, clip):
    """The current folder: `media` holds sound0.mp4 and sound1.mp4, which are videos, and bad.mp4, which is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plotting, "_DPI", 20)
    (tmp_path / "media").mkdir()
    for k in range(2):
        shutil.copy(clip, tmp_path / "media" / f"sound{k}.mp4")
    (tmp_path / "media" / "bad.mp4").write_bytes(b"no video" * 99)
    return tmp_path


STATES = {"whole": ["sound0", "sound1"], "partly": ["sound0", "bad"], "nothing": ["bad"]}


def features(names):
    options = ("--model", tiny_checkpoint(), "--out", "out", "--devices", "cpu", "--decoders", 1)
    return run("data", "features", *(f"media/{name}.mp4" for name in names), *options)


def shard(names):
    Path("media/bad.mp4").unlink()  # shards want a file, and do not open it
    Path("in.json").write_text(json.dumps([record(name) for name in names]))
    return run("data", "shard", "in.json", "--kind", "video", "--media", "media", "--out", "out")


def check(names):
    records = [record(name) if name != "bad" else record(name, conversations=turns()[:1]) for name in names]
    Path("in.json").write_text(json.dumps(records))
    return run("data", "check", "in.json")


def fix(names):
    code, words = check(names)
    fixed, words = run("data", "check", "in.json", "--fix", "out.json")
    assert fixed == code
    return fixed, words


def change(names):
    """Records that a change heals: none is lost."""
    Path("in.json").write_text(json.dumps([record(name, **({"x": 1} if name == "bad" else {})) for name in names]))
    return run("data", "check", "in.json", "--fix", "out.json")


def group(names):
    records = [record(name) if name != "bad" else record(name, video=None) for name in names]
    Path("in.json").write_text(json.dumps(records))
    return run("data", "group", "in.json", "out.json")


def stats(names):
    group(names)
    return run("data", "stats", "in.json", "--out", "out")


def sources(names):
    Path("in.json").write_text(json.dumps([record(name) for name in names]))
    return run("data", "sources", "--records", "in.json", "--media", "media", "--processes", 1)


def write_shards(folder, texts):
    with ShardWriter(folder, {"text": "str"}, hashes=["sha1"], size_limit_bytes=400) as writer:
        for text in texts:
            writer.write({"text": text})


def lengths(names):
    with ShardWriter(Path("shards"), {"video": "str", "text": "json"}) as writer:
        for name in names:
            writer.write({"video": f"{name}.mp4", "text": {"conversations": turns()}})
    return run("data", "lengths", "shards", "--model", tiny_checkpoint(), "--media", "media", "--processes", 1)


def verify(names):
    """Shards of one folder."""
    write_shards(Path("shards"), [name * 50 for name in names])
    shards = sorted(Path("shards").glob("*.mds"))
    assert len(shards) == len(names)
    for path, name in zip(shards, names):
        if name == "bad":
            path.write_bytes(path.read_bytes()[:-1])
    return run("data", "verify", "shards")


def verify_streams(names):
    """Streams of a stage."""
    for k, name in enumerate(names):
        write_shards(Path("stage", str(k)), [name])
        if name == "bad":
            next(Path("stage", str(k)).glob("*.mds")).unlink()
    Path("stage/streams.json").write_text(json.dumps({"streams": [{"folder": str(k)} for k in range(len(names))]}))
    return run("data", "verify", "stage")


def merge(names):
    for name in names:
        write_shards(Path(name, "0"), [name])
        if name == "bad":
            next(Path(name).rglob("*.mds")).unlink()
    return run("data", "merge", *names)


def prepare(names):
    Path("media/bad.mp4").unlink()
    Path("data").mkdir()
    Path("media").rename("data/media")
    Path("data/in.json").write_text(json.dumps([record(name) for name in names]))
    source = {"kind": "video", "media": "media", "files": {"in.json": "all"}}
    stage = {"s1": {"streams": {"0": ["ours_part0"]}}}
    Path("mixture.json").write_text(json.dumps({"parts": 1, "sources": {"ours": source}, "stages": stage}))
    return run("data", "prepare", "--stage", "s1", "--mixture", "mixture.json")


def evaluate(names):
    """A world whose videos are damaged."""
    settings = ("--videos", len(names), "--minutes", "0.2", "--size-pixels", 64, "--container", "mp4")
    made = run("world", "make", "--out", "world", *settings, "--per-task", 1, "--formats", "choice", "--processes", 1)
    assert made[0] == 0, made
    for path, name in zip(sorted(Path("world").rglob("*.mp4")), names, strict=True):
        if name == "bad":
            path.write_bytes(b"no video" * 99)
    return run("eval", "world", "--out", "out", "--world", "world", "--no-baselines", "--model", tiny_checkpoint())


def benchmark_files(names, is_missing):
    """EgoSchema in the shape of its authors' files; the bad video is damaged, or is not there."""
    options = {f"option {k}": f"C does {k}." for k in range(5)}
    Path("questions.json").write_text(json.dumps([{"q_uid": name, "question": "What?"} | options for name in names]))
    Path("subset_answers.json").write_text(json.dumps(dict.fromkeys(names, 0)))
    if is_missing:
        Path("media/bad.mp4").unlink()


def benchmark(names):
    benchmark_files(names, is_missing=False)
    return run("eval", "egoschema", ".", "--out", "out", "--model", tiny_checkpoint(), "--device", "cpu")


def check_benchmark(names):
    benchmark_files(names, is_missing=True)
    return run("eval", "check", "egoschema", ".")


def clear(names):
    cache = MemoryCache()
    cache.folder.mkdir(parents=True)
    for name in names:
        path = cache.folder / f"{name}.memory.safetensors"
        if name == "bad":  # what root may not remove either
            path.mkdir()
        else:
            path.write_bytes(b"x" * 100)
    return run("cache", "clear")


COMMANDS = [
    (features, DATA, "1 of {n} videos failed"),
    (shard, DATA, "1 records were skipped"),
    (check, DATA, "1 problems"),
    (fix, DATA, "1 of {n} records of in.json were dropped"),
    (group, DATA, "could not be used|holds no question"),
    (stats, DATA, "could not be used|holds no question"),
    (sources, DATA, "1 of {n} files"),
    (lengths, DATA, "1 of {n} rows cannot be measured"),
    (verify, DATA, "1 of {n} shards are damaged"),
    (verify_streams, DATA, "shards are damaged"),
    (merge, DATA, "cannot be read"),
    (prepare, DATA, "1 records were left out"),
    (evaluate, VIDEO, "were not answered, about 1 of 2 videos|no video"),
    (benchmark, VIDEO, "1 of {n} questions, about 1 videos, could not be asked"),
    (check_benchmark, DATA, "1 of {n} questions cannot be asked|none of the 1 videos is below"),
    (clear, MEMORY, "1 of {n} memories in .* cannot be removed"),
]


LONG = {"evaluate", "features", "stats"}
"""Commands that take seconds; that they end with 0 if all is well is seen in their own tests, too."""

CASES = [
    pytest.param(
        *case, state, id=f"{case[0].__name__}-{state}",
        marks=[pytest.mark.slow] if state == "whole" and case[0].__name__ in LONG else [],
    )
    for case in COMMANDS
    for state in STATES
]  # fmt: skip


@pytest.mark.parametrize(("command", "nothing", "words", "state"), CASES)
def test_some_failed_is_told_from_nothing_done(folder, monkeypatch, command, nothing, words, state):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    code, said = command(STATES[state])
    assert code == {"whole": 0, "partly": PARTLY, "nothing": nothing}[state], said
    if state != "whole":
        assert re.search(words.format(n=len(STATES[state])), said), said
        assert "\n" not in said


@pytest.mark.parametrize("state", STATES)
def test_what_a_change_heals_is_done(folder, state):
    assert change(STATES[state])[0] == 0


def test_the_table_names_every_command_of_many_items():
    text = DOCUMENT.read_text()
    table = text[text.index("## Exit codes") : text.index("## JSON")]
    found = {
        name for row in re.findall(r"^\| (`.*?`) \|", table, flags=re.MULTILINE) for name in re.findall("`(.*?)`", row)
    }
    assert found == {
        "data features", "data shard", "data prepare", "data check", "data check --fix", "data sources", "data verify",
        "data lengths", "data group", "data merge", "data stats", "synth", "eval world", "eval video-mme", "eval check",
        "cache clear",
    }  # fmt: skip
