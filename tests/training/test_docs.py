"""docs/training.md: its commands run on a tiny checkpoint, and its tables are complete."""

import itertools
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from torch.distributed.run import get_args_parser
from typer.testing import CliRunner

from conftest import GOLDEN
from forked_decoding import forked_decoding
from forking import COMMAND, environment
from hourllava.cli.main import app
from hourllava.training.recipe import MAX_DEFAULT_WORKERS, Recipe, load_recipe, shipped_recipes
from hourllava.training.run import train
from training.runs import recipe_of, start_python_processes
from video.clips import write_clip

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "recipe-settings.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
RELEASED = "jylins/hourllava-qwen25-3b-s3"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", DOC, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader stands: a video, questions, the recipe, and a small checkpoint in place of the released one."""
    root = tmp_path_factory.mktemp("reader")
    for source in (GOLDEN / "tiny_pixels", GOLDEN / "chat" / "tokenizer"):
        shutil.copytree(source, root / "checkpoint", dirs_exist_ok=True)
    (root / "videos").mkdir()
    write_clip(root / "videos" / "lecture.mp4", num_frames=12, fps=4)
    (root / "my.json").write_text(blocks("json")[0])
    (root / "my-run.yaml").write_text(blocks("yaml")[0].replace(RELEASED, "checkpoint"))
    return root


def commands():
    return [line for block in blocks("sh") for line in block.splitlines()]


def words(command):
    return shlex.split(command.replace(RELEASED, "checkpoint"))


@pytest.mark.slow
def test_the_commands_run_in_order(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    ours = [words(command)[1:] for command in commands() if "--gpus" not in command and "torchrun" not in command]
    assert {arguments[0] for arguments in ours} == {"data", "train", "ask", "export"}
    for arguments in ours:
        short = {"ask": ["--max-new-tokens", "8"], "train": ["--set", "schedule.max_steps=1"]}.get(arguments[0], [])
        with forked_decoding():
            result = CliRunner().invoke(app, [*arguments, *short])
        assert result.exit_code == 0, (arguments, result.output, result.exception)
    assert (folder / "runs/mine/final/model.safetensors").is_file()
    assert yaml.safe_load((folder / "runs/slower/recipe.yaml").read_text())["learning_rates"]["*.lora_*"] == 2e-5
    assert (folder / "my-model/README.md").is_file()

    for command in several_processes():
        arguments = [*of_each_process(command, monkeypatch), "--dry-run", "--gpus", "2"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)


@pytest.mark.slow
def test_the_commands_for_several_gpus_run_on_two_processes(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for arguments in (words(command)[1:] for command in commands() if command.startswith("hourllava data")):
        assert CliRunner().invoke(app, arguments).exit_code == 0
    for command in several_processes():
        arguments = of_each_process(command, monkeypatch)
        with start_python_processes(
            COMMAND, *arguments, processes=2, env=environment(folder / "cache"), cwd=folder
        ) as processes:
            assert processes.wait(300) == 0, processes.stderr
            out = next(word for word in command if word.startswith("out=")).removeprefix("out=")
            lines = [f"{out}/final", f'ask it: hourllava ask VIDEO "QUESTION" --model {out}/final']
            assert [text.splitlines() for text in processes.stdout] == [lines, []]


def several_processes():
    found = [words(command) for command in commands() if "--gpus" in command or "torchrun" in command]
    assert {command[0] for command in found} == {"hourllava", "torchrun"}
    return found


def of_each_process(command, monkeypatch):
    """Arguments of the `hourllava` that every process runs."""
    if command[0] == "hourllava":
        started = []
        with monkeypatch.context() as patch:
            result = subprocess.CompletedProcess([], 0)
            patch.setattr(
                "hourllava.training.command.subprocess.run", lambda line, check: started.append(line) or result
            )
            assert CliRunner().invoke(app, command[1:]).exit_code == 0
        command = started[0][2:]  # without `python -m`
    options = get_args_parser().parse_args(command[1:])
    assert (options.module, options.training_script) == (True, "hourllava")
    return options.training_script_args


def settings(section, prefix=""):
    """Every setting of a recipe: key, and its default as YAML."""
    for name, field in section.model_fields.items():
        inner = [part for part in _parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        is_list = "list" in str(field.annotation)
        optional = not field.is_required() and field.default is None
        if not inner or is_list or optional:
            no_default = field.is_required() or field.default is None
            default = MAX_DEFAULT_WORKERS if name == "workers" else field.default  # fewer on fewer cores
            yield prefix + name, None if no_default else default
        if inner:
            yield from settings(inner[0], f"{prefix}{name}{'[]' if is_list else ''}.")


def _parts(annotation):
    return [annotation, *(part for argument in getattr(annotation, "__args__", ()) for part in _parts(argument))]


def test_the_table_of_settings_is_complete_and_its_defaults_are_right():
    table = re.search(
        r"^\| setting \| default \| means \|\n\|---\|---\|---\|\n(.*?)\Z", SETTINGS, re.DOTALL | re.MULTILINE
    )
    told = {}
    for line in table[1].splitlines():
        key, default, means = (cell.strip() for cell in line.strip("|").split(" | "))
        assert means
        told[key.strip("`")] = default.strip("`")
    expected = {key: default for key, default in settings(Recipe) if not key.startswith("validation.streams[]")}
    assert list(told) == list(expected)
    for key, default in expected.items():
        if key == "lora.targets":
            assert told[key] == "decoder"
        elif default is None:
            assert told[key] == ""
        else:
            plain = json.loads(json.dumps(default, default=str))
            assert yaml.safe_load(told[key]) == plain or float(told[key]) == plain, key


def test_every_figure_of_the_log_is_told(mixture, tmp_path):
    root, streams = mixture
    validation = {"streams": streams[1:2], "every_steps": 1}
    recipe = recipe_of(root, streams, out=str(tmp_path), schedule={"max_steps": 1}, validation=validation)
    train(Recipe.model_validate(recipe))
    history = json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())["log_history"]
    logged = {key for entry in history for key in entry} - {"step", "epoch"}
    assert {"loss", "validation_loss", "tokens_per_second"} <= logged
    told = set(re.findall(r"`(\w+)`", DOC[DOC.index("## What the log says") : DOC.index("## Memory")]))
    assert logged <= told


def test_every_recipe_that_is_named_is_shipped():
    named = re.findall(r"(?:recipes/|`)((?:hourllava-\w+/s\d|finetune[\w-]*)\.yaml)", README + DOC)
    assert named
    assert {f"recipes/{name}" for name in named} <= set(shipped_recipes())


def test_lengths_measured_for_stage_4_are_those_that_it_reads():
    (command,) = re.findall(r"`(hourllava data lengths SHARDS [^`]*)`", DOC)
    options = dict(itertools.pairwise(command.split()))
    for family in ("3b", "7b"):
        data = load_recipe(f"recipes/hourllava-{family}/s4.yaml").data
        assert (options["--questions"], options["--history"]) == (data.questions, str(data.history))
