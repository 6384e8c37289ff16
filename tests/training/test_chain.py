"""The scripts that make nano and its ablations: their commands are right, and make the data that the recipes read."""

import functools
import itertools
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from hourllava.cli.main import app
from hourllava.data.mds.reader import MdsDataset
from hourllava.training.recipe import load_recipe

ROOT = Path(__file__).parents[2]
CHAIN = ROOT / "src/hourllava/recipes/hourllava-nano/chain.sh"
STAGES = range(5)
ABLATIONS = ROOT / "benchmarks/nano-ablations.sh"
INSTANT = ROOT / "benchmarks/nano-instant.sh"
CARD = ROOT / "benchmarks/nano-card.sh"


def write_command(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def run_script(tmp_path):
    """Runs a script; what it starts is noted in `log`, and what makes data also runs if `for_real`.

    What loads torch never runs: measuring lengths, training.
    """
    commands = tmp_path / "bin"
    commands.mkdir()
    log = tmp_path / "log"
    note = f"""line=$(printf '%s\\t' "$@"); echo "$line" >> {log}"""
    write_command(
        commands / "hourllava",
        f'''{note}
[ "$2" = lengths ] && {{ mkdir -p "$3"; touch "$3/lengths.json"; exit; }}
[ -z "$FOR_REAL" ] || [ "$1" = train ] || exec {sys.executable} -m hourllava "$@"
[ "$2" != shard ] || {{ mkdir -p "$9"; touch "$9/index.json"; }}
[ "$2" != make ] || mkdir -p "$4/videos"''',
    )
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "PROCESSES": "1"}

    def run(script, *arguments, for_real=False, exit_code=0, **settings):
        log.unlink(missing_ok=True)
        command = [shutil.which("bash"), script, *arguments]
        settings["FOR_REAL"] = "1" if for_real else ""
        done = subprocess.run(command, cwd=tmp_path, env=environment | settings, capture_output=True, text=True)
        assert done.returncode == exit_code, done.stderr
        return [line.rstrip("\t").split("\t") for line in log.read_text().splitlines()] if log.exists() else []

    return run


command_of = functools.cache(get_command)  # putting all commands together takes 30 ms


def parse(arguments):
    """Refuse what `hourllava` would refuse of a command's arguments."""
    command, name = command_of(app), "hourllava"
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, arguments)
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, arguments)


def nano(stage):
    return f"recipes/hourllava-nano/s{stage}.yaml"


def ablation_streams():
    """The folder of the videos, and the folders of shards that the plan's variants read."""
    plan = yaml.safe_load(ABLATIONS.with_suffix(".yaml").read_text())
    (recipe,) = plan["recipes"]
    data = load_recipe(recipe).data
    streams = [stream for variant in plan["variants"] for stream in variant.get("set", {}).get("data.streams", [])]
    assert streams
    return data.media, {stream.folder for stream in data.streams} | {stream["folder"] for stream in streams}


def check_stream(root, folder, media):
    """Its first row's video is there; returns the row."""
    rows = MdsDataset(str(root / folder))
    assert len(rows) > 0
    row = rows.row(0)
    if "video" in row:
        assert (root / media / row["video"]).is_file()
    return row


def test_the_chain_names_what_its_recipes_read(run_script):
    noted = run_script(CHAIN, "--set", "seed=1", GPUS="2")
    trained = [line for line in noted if line[0] == "train"]
    assert trained == [["train", nano(stage), "--gpus", "2", "--set", "seed=1"] for stage in STAGES]
    check_commands(noted, STAGES)


def check_commands(noted, stages):
    """All commands are right, and make what these stages read and nothing else."""
    for arguments in noted:
        parse(arguments)
    sharded = {line[line.index("--out") + 1] for line in noted if line[:2] == ["data", "shard"]}
    read = {stream.folder for stage in stages for stream in load_recipe(nano(stage)).data.streams}
    measured = {line[2]: dict(itertools.pairwise(line)) for line in noted if line[:2] == ["data", "lengths"]}
    assert sharded == read == set(measured)
    for data in (load_recipe(nano(stage)).data for stage in stages if stage):  # stage 0 measures itself
        for options in (measured[stream.folder] for stream in data.streams):
            assert (options["--questions"], options["--history"]) == (data.questions, str(data.history))


def test_a_stage_of_the_chain_alone_with_new_videos(run_script):
    settings = {"STAGES": "4", "START": "nano", "SEED_SHIFT": "400", "SHARE": "20", "VIDEO_SHARE": "2"}
    noted = run_script(CHAIN, **settings)
    assert [line for line in noted if line[0] == "train"] == [
        ["train", nano(4), "--gpus", "1", "--set", "start.checkpoint=nano"]
    ]
    check_commands(noted, [4])
    made = [int(line[line.index("--videos") + 1]) for line in noted if line[:2] == ["world", "make"]]
    assert max(made) == 25000
    assert noted[[line[:2] for line in noted].index(["world", "pictures"])][-6:] == [
        "--images", "10000", "--multi-images", "1000", "--texts", "3000"
    ]  # fmt: skip
    seeds = {line[line.index("--seed") + 1] for line in noted if line[:2] == ["world", "make"]}
    assert len(seeds) == 10
    assert all(400 < int(seed) <= 411 for seed in seeds)
    again = run_script(CHAIN, **settings | {"STAGES": "3 4"})
    assert [line[1] for line in again] == [nano(3), nano(4)]  # data is there
    assert ["start.checkpoint=nano" in line for line in again] == [True, False]


def test_the_chain_runs_where_the_library_is_only_on_the_path_of_python(run_script, tmp_path):
    command, python = tmp_path / "bin/hourllava", tmp_path / "python"
    noting = command.rename(tmp_path / "noting")
    write_command(python, f'[ "$1 $2" != "-m hourllava" ] && exec {sys.executable} "$@"; shift 2; exec {noting} "$@"')
    noted = run_script(CHAIN, STAGES="0", PATH="/usr/bin:/bin", PYTHON=str(python))
    assert ["train", nano(0), "--gpus", "1"] in noted


def test_ablations_name_what_their_plan_reads(run_script):
    noted = run_script(ABLATIONS, DATA="only")
    for arguments in noted:
        parse(arguments)
    _, folders = ablation_streams()
    assert folders <= {line[2] for line in noted if line[:2] == ["data", "lengths"]}
    assert run_script(ABLATIONS, DATA="only") == []  # everything is there


def test_recall_tokens_are_tried_from_weights_without_them(run_script, tmp_path):
    write_command(tmp_path / "bin/git", f'echo "$@" >> {tmp_path / "git"}; exec tar -cf - -C {INSTANT.parent} ask.py')
    noted = run_script(INSTANT, DATA="only")
    for arguments in noted:
        parse(arguments)
    plan = yaml.safe_load(INSTANT.with_suffix(".yaml").read_text())
    (recipe,) = plan["recipes"]
    streams = load_recipe(recipe).data.streams
    assert {stream.folder for stream in streams} == {line[2] for line in noted if line[:2] == ["data", "lengths"]}
    assert [path.name for path in (tmp_path / plan["common"]["start.checkpoint"]).iterdir()] == ["ask.py"]
    assert run_script(INSTANT, DATA="only") == []
    assert (tmp_path / "git").read_text().count("archive") == 1


def test_the_card_asks_with_right_commands_and_as_much_as_it_says(run_script):
    noted = run_script(CARD, "nano", "card", PROCESSES="2", GPUS="2")
    for line in noted:
        parse(line)
    options = [dict(itertools.pairwise(line)) for line in noted]
    assert sorted(one["--shard"] for one in options if "--shard" in one) == sorted(f"{part}/65" for part in range(65))
    videos = Counter()
    for line, one in zip(noted, options):
        if line[:2] == ["eval", "world"]:
            videos[one["--minutes"], "--needles" in line] += int(one["--videos"])
    assert videos == {("3-60", False): 48, ("0.2-0.75", False): 20} | {
        (minutes, True): 20 for minutes in ("180", "60", "20", "1,5")
    }
    assert sum(line[0] == "demo" for line in noted) == 10
    assert all(one["--model"] == "nano" for line, one in zip(noted, options) if line[1] != "make")


@pytest.mark.parametrize("number", [1, 2])
def test_scripts_use_the_cores_that_they_may_use(run_script, tmp_path, number):
    before = os.sched_getaffinity(0)
    usable = set(sorted(before)[-number:])
    found = tmp_path / "cores"
    write_command(tmp_path / "bin/hourllava", f"taskset -cp $$ | sed 's/.*: //' >> {found}; sleep 0.1")
    os.sched_setaffinity(0, usable)
    try:
        run_script(CARD, "nano", "card", PARTS="demo", PROCESSES="", OMP_NUM_THREADS="1")  # `nproc` would say 1
    finally:
        os.sched_setaffinity(0, before)
    assert {int(core) for core in found.read_text().split()} == usable


def test_a_failed_job_of_the_card_stops_no_other_and_is_told(run_script, tmp_path):
    command = tmp_path / "bin/hourllava"
    noting = command.rename(tmp_path / "noting")
    write_command(command, f'{noting} "$@"; [ "$5" != 3 ]')
    noted = run_script(CARD, "nano", "card", PARTS="demo", exit_code=1)
    assert sum(line[0] == "demo" for line in noted) == 10


@pytest.mark.slow
def test_the_chain_makes_what_its_recipes_read(tmp_path, run_script):
    for _ in range(2):  # the second time everything is there
        noted = run_script(CHAIN, SHARE="2000", for_real=True)
    assert [line[1] for line in noted] == [nano(stage) for stage in STAGES]
    for stage in STAGES:
        data = load_recipe(nano(stage)).data
        for stream in data.streams:
            check_stream(tmp_path, stream.folder, data.media)


@pytest.mark.slow
def test_ablations_have_the_data_that_their_plan_reads(tmp_path, run_script):
    noted = run_script(ABLATIONS, SHARE="600", DATA="only", for_real=True)
    media, folders = ablation_streams()
    for folder in folders:
        row = check_stream(tmp_path, folder, media)
        name, number, *in_one = Path(folder).name.split("-")
        questions = len(row["text"]["conversations"]) // 2
        assert 1 <= questions <= int(number), name
        (line,) = [line for line in noted if line[:3] == ["data", "lengths", folder]]
        assert line[line.index("--questions") + 1] == ("conversation" if in_one else "segments")
