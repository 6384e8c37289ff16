"""`hourllava train` and `hourllava export` as a user meets them."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from forking import run_hourllava
from hourllava.cli import main
from hourllava.errors import ConfigError, DataError
from hourllava.training import command
from training.runs import recipe_of, write_recipe
from video.clips import write_clip


@pytest.fixture(scope="module")
def recipe(mixture, tmp_path_factory):
    root = tmp_path_factory.mktemp("recipe")
    content = recipe_of(*mixture, out=str(root / "run"), schedule={"max_steps": 1})
    return write_recipe(root / "recipe.yaml", content)


def invoke(*arguments):
    result = CliRunner().invoke(main.app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout.splitlines()


class TestTrain:
    def test_a_dry_run_tells_and_trains_nothing(self, recipe):
        lines = invoke("train", recipe, "--dry-run", "--gpus", 2, "--set", "schedule={epochs: 3, max_steps: 4}")
        assert lines[0] == "start       hourllava-nano"
        assert any(line.startswith("steps       4 (0 of warm-up)") for line in lines)
        assert any(line.startswith("balance     2 processes") for line in lines)
        assert not list(recipe.parent.glob("run/*.yaml"))

    def test_it_ends_with_the_model_and_how_to_ask_it(self, recipe, tmp_path):
        model = tmp_path / "out" / "final"
        lines = invoke("train", recipe, "--set", f"out={tmp_path / 'out'}")
        assert lines == [str(model), f'ask it: hourllava ask VIDEO "QUESTION" --model {model}']
        assert invoke("train", recipe, "--set", f"out={tmp_path / 'out'}") == lines
        assert invoke("export", model, tmp_path / "given") == [str(tmp_path / "given")]
        write_clip(tmp_path / "v.mp4", num_frames=20, fps=4)
        for folder in (model, tmp_path / "given"):
            answer = invoke("ask", tmp_path / "v.mp4", "What?", "--model", folder, "--max-new-tokens", 2, "--no-cache")
            assert answer

    def test_other_processes_than_the_first_say_nothing(self, recipe, monkeypatch):
        monkeypatch.setattr(command, "train", lambda recipe: recipe.out / "final")
        assert len(invoke("train", recipe)) == 2
        monkeypatch.setenv("RANK", "1")
        assert invoke("train", recipe) == []

    def test_several_gpus_are_torchruns(self, recipe, monkeypatch):
        started = []

        def execute(arguments, check):
            started.append(arguments)
            return subprocess.CompletedProcess(arguments, 0)

        monkeypatch.setattr(command.subprocess, "run", execute)
        CliRunner().invoke(main.app, ["train", str(recipe), "--gpus", "4", "--set", "seed=3", "--set", "out=x"])
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
        assert started == [[*launcher, "-m", "hourllava", "train", str(recipe), "--set", "seed=3", "--set", "out=x"]]

    def test_a_wrong_recipe_starts_no_processes(self, recipe, monkeypatch):
        monkeypatch.setattr(command.subprocess, "run", lambda *arguments, **options: pytest.fail("started"))
        with pytest.raises(ConfigError, match="sed is not a setting"):
            invoke("train", recipe, "--gpus", 4, "--set", "sed=3")

    def test_a_missing_folder_of_shards(self, recipe, tmp_path):
        with pytest.raises(DataError, match="nothing"):
            invoke("train", recipe, "--dry-run", "--set", f"data.streams=[{{folder: {tmp_path / 'nothing'}}}]")

    def test_a_budget_smaller_than_a_sample(self, recipe, tmp_path):
        with pytest.raises(ConfigError, match=r"sample \d+ of stream \w+ has \d+ tokens, more than the token budget"):
            invoke("train", recipe, "--dry-run", "--set", "batch.token_budget=16", "--set", f"out={tmp_path}")


class TestErrors:
    def test_one_line_and_an_exit_code(self, tmp_path):
        result = run_hourllava("train", "recipes/hourlava-3b/s3.yaml", cache=tmp_path)
        assert result.returncode == ConfigError.exit_code
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith(
            "error: there is no recipe 'recipes/hourlava-3b/s3.yaml', did you mean recipes/"
        )

    @pytest.mark.parametrize(
        ("error", "rank", "printed"),
        [
            (ConfigError("x"), None, "error: x\n"),
            (ConfigError("x"), "0", "error (process 0): x\n"),
            (ConfigError("x"), "1", ""),
            (DataError("x"), "1", "error (process 1): x\n"),
        ],
    )
    def test_what_all_processes_find_is_told_once(self, error, rank, printed, monkeypatch, capsys):
        def fail():
            raise error

        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
            if rank is not None:
                monkeypatch.setenv(name, rank)
        monkeypatch.setattr(main, "app", fail)
        with pytest.raises(SystemExit) as exit_:
            main.run()
        assert exit_.value.code == error.exit_code
        assert capsys.readouterr().err == printed
