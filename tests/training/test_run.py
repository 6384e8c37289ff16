"""A run from recipe to weights: it learns, resumes where it was killed, and any number of processes do the same."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from hourllava.errors import CheckpointError, ConfigError, DataError, TrainingError
from hourllava.model.checkpoint import load_model
from hourllava.model.head import LanguageModelHead
from hourllava.training import checkpoints as checkpoint_files
from hourllava.training.recipe import Recipe, load_recipe
from hourllava.training.run import prepare, train
from running import children_of
from training.runs import LAST_ONLY, kill_after, recipe_of, run, start, write_recipe, write_videos

WEIGHTS = "model.safetensors"


def weights(out):
    return load_file(out / "final" / WEIGHTS)


def losses(out):
    """Loss of each step, from the log of the newest checkpoint."""
    newest = checkpoint_files.checkpoints(out)[-1]
    return [entry["loss"] for entry in json.loads((newest / "trainer_state.json").read_text())["log_history"]]


class TestRun:
    def test_the_loss_falls_and_the_model_can_be_loaded(self, finished):
        values = losses(finished.out)
        assert len(values) == 6
        assert values[-1] < values[0] - 0.3
        model, report = load_model(finished.out / "final")
        assert not report.fresh
        assert not report.unexpected
        assert model.config.min_video_frames == 4

    def test_only_the_newest_checkpoints_are_kept(self, finished):
        assert [path.name for path in checkpoint_files.checkpoints(finished.out)] == ["checkpoint-4", "checkpoint-6"]

    def test_a_finished_run_is_not_trained_again(self, finished):
        before = (finished.out / "final" / WEIGHTS).stat().st_mtime_ns
        assert train(finished) == finished.out / "final"
        assert (finished.out / "final" / WEIGHTS).stat().st_mtime_ns == before

    def test_a_finished_run_of_another_recipe_is_not_taken_for_this_one(self, finished):
        with pytest.raises(TrainingError, match=r"was trained by another recipe.*choose another `out`"):
            train(finished.model_copy(update={"seed": 5}))

    def test_a_run_that_lost_its_end_goes_on_to_the_same_weights(self, finished, tmp_path):
        out = tmp_path / "out"
        shutil.copytree(finished.out / "checkpoint-4", out / "checkpoint-4")
        (out / ".checkpoint-6.partial").mkdir()  # what a kill leaves behind
        train(finished.model_copy(update={"out": out}))
        assert (out / "final" / WEIGHTS).read_bytes() == (finished.out / "final" / WEIGHTS).read_bytes()

    def test_a_run_that_was_killed_after_its_last_step_is_only_finished(self, finished, tmp_path, capsys):
        shutil.copytree(finished.out / "checkpoint-6", tmp_path / "checkpoint-6")
        train(finished.model_copy(update={"out": tmp_path}))
        assert "step" not in capsys.readouterr().err
        assert (tmp_path / "final" / WEIGHTS).read_bytes() == (finished.out / "final" / WEIGHTS).read_bytes()

    @pytest.mark.slow
    def test_activation_checkpointing_changes_nothing(self, finished, tmp_path):
        shutil.copytree(finished.out / "checkpoint-4", tmp_path / "out" / "checkpoint-4")
        train(finished.model_copy(update={"out": tmp_path / "out", "activations": "selective"}))
        for name, tensor in weights(tmp_path / "out").items():
            torch.testing.assert_close(tensor, weights(finished.out)[name], atol=1e-5, rtol=1e-4)

    def test_validation_is_logged(self, finished, mixture, tmp_path, capsys):
        shutil.copytree(finished.out / "checkpoint-4", tmp_path / "checkpoint-4")
        held_out = {"streams": [mixture[1][2]], "every_steps": 1, "answers": 1, "max_new_tokens": 2}
        recipe = Recipe.model_validate(
            finished.model_dump(mode="json", exclude_none=True) | {"out": str(tmp_path), "validation": held_out}
        )
        train(recipe)
        printed = capsys.readouterr()
        assert printed.err.count("validation loss") == 2
        assert printed.out.count("(truth 'minus')") == 2
        assert (tmp_path / "final" / WEIGHTS).read_bytes() == (finished.out / "final" / WEIGHTS).read_bytes()

    def test_questions_of_one_video_share_a_memory_or_a_conversation(self, tmp_path, capsys):
        write_videos(tmp_path / "videos", tmp_path / "media", turns=3, evidence=True)
        for questions in ("conversation", "segments"):
            recipe = recipe_of(tmp_path, [{"folder": str(tmp_path / "videos")}], out=str(tmp_path / questions))
            recipe |= {"schedule": {"kind": "constant", "warmup": 0.0, "max_steps": 3}, "checkpoints": LAST_ONLY}
            recipe["data"] |= {"questions": questions, "grounding_weight": float(questions == "segments")}
            train(Recipe.model_validate(recipe))
            assert losses(tmp_path / questions)[-1] < losses(tmp_path / questions)[0]
            # Only a run that learns where to look measures where it looks.
            assert ("evidence" in capsys.readouterr().err) == (questions == "segments")

    def test_answers_are_noisy_in_training_and_never_in_validation(self, mixture, tmp_path):
        recipe = recipe_of(*mixture, out=str(tmp_path))
        recipe["data"]["answer_noise"] = 0.5
        prepared = prepare(Recipe.model_validate(recipe | {"validation": {"streams": [mixture[1][2]]}}))
        shares = []
        for corpus in (prepared.corpus, prepared.validation.corpus):
            is_true = [
                inputs["input_ids"][inputs["labels"] != -100] == inputs["labels"][inputs["labels"] != -100]
                for inputs in islice(corpus.loader(tmp_path / "failures"), 4)
            ]
            shares.append(float(torch.cat(is_true).float().mean()))
        assert 0.3 < shares[0] < 1
        assert shares[1] == 1

    def test_long_answers_count_no_more_than_short_ones(self, mixture, tmp_path):
        """The first logged loss is that of the start: the mean over answers, or over tokens."""
        for weights in ("tokens", "answers"):
            recipe = recipe_of(*mixture, out=str(tmp_path / weights))
            recipe["data"]["label_weights"] = weights
            recipe["schedule"] = {"max_steps": 1, "epochs": 1}
            recipe = Recipe.model_validate(recipe)
            train(recipe)
            prepared = prepare(recipe)
            total = count = 0.0
            for inputs in islice(
                prepared.corpus.loader(tmp_path / "failures"), prepared.corpus.plan.micro_batches_of_rank(1)
            ):
                labels, segments = inputs["labels"][0], inputs["segments"]
                inputs.pop("modalities")
                inputs.pop("label_weights", None)
                with torch.no_grad():
                    by_token = prepared.model(**inputs).target_losses
                for part, part_labels in zip(by_token.split(segments.lengths), labels.split(segments.lengths)):
                    supervised = int((part_labels != -100).sum())
                    total += float(part.sum()) / (supervised if weights == "answers" else 1)
                    count += 1 if weights == "answers" else supervised
            assert losses(tmp_path / weights)[0] == pytest.approx(total / count, rel=1e-4)


class TestProcesses:
    @pytest.mark.slow
    def test_two_processes_with_ddp_train_as_one(self, finished, mixture, tmp_path):
        """Two processes resume where one stopped, and one where two stopped."""
        shutil.copytree(finished.out / "checkpoint-4", tmp_path / "out" / "checkpoint-4")
        recipe = recipe_of(
            *mixture, out=str(tmp_path / "out"), parallel={"kind": "ddp"}, checkpoints={"every_steps": 1}
        )
        path = write_recipe(tmp_path / "recipe.yaml", recipe)
        run(path, processes=2)
        for name, tensor in weights(tmp_path / "out").items():
            torch.testing.assert_close(tensor, weights(finished.out)[name], atol=2e-4, rtol=1e-3)
        assert losses(tmp_path / "out") == pytest.approx(losses(finished.out), rel=1e-4)
        shutil.rmtree(tmp_path / "out" / "checkpoint-6")
        shutil.rmtree(tmp_path / "out" / "final")
        train(Recipe.model_validate(recipe))
        for name, tensor in weights(tmp_path / "out").items():
            torch.testing.assert_close(tensor, weights(finished.out)[name], atol=2e-4, rtol=1e-3)

    @pytest.mark.slow
    def test_a_process_that_dies_ends_the_run_and_loses_nothing(self, mixture, tmp_path):
        recipe = recipe_of(*mixture, out=str(tmp_path / "out"))
        recipe["schedule"] = {"epochs": 400}
        path = write_recipe(tmp_path / "recipe.yaml", recipe)
        command = subprocess.Popen(
            [sys.executable, "-m", "hourllava", "train", str(path), "--gpus", "2"], stderr=subprocess.PIPE, text=True
        )
        while not checkpoint_files.checkpoints(tmp_path / "out"):
            assert command.poll() is None, command.communicate()
        launcher = children_of(command.pid)[0]
        os.kill(children_of(launcher)[-1], signal.SIGKILL)
        _, stderr = command.communicate(timeout=60)
        assert command.returncode == TrainingError.exit_code
        newest = checkpoint_files.checkpoints(tmp_path / "out")[-1]
        assert stderr.splitlines()[-1].startswith("error: a process of the run failed")
        assert stderr.endswith(f"the same command resumes from {newest}\n")
        load_model(newest)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(finished, mixture, tmp_path):
    rng = random.Random(0)
    path = write_recipe(tmp_path / "recipe.yaml", recipe_of(*mixture))
    began = time.monotonic()
    run(path, f"out={tmp_path / 'whole'}")
    whole_seconds = time.monotonic() - began
    killed = 0
    for number in range(40):
        out = tmp_path / f"out{number}"
        while not (out / "final").is_dir():
            killed += kill_after(start(path, f"out={out}"), rng.uniform(0, 1.2 * whole_seconds))
        assert (out / "final" / WEIGHTS).read_bytes() == (finished.out / "final" / WEIGHTS).read_bytes()
        if killed >= 10:
            return
    pytest.fail(f"only {killed} kills")


class TestBadInput:
    def recipe(self, mixture, tmp_path, **changes):
        return Recipe.model_validate(recipe_of(*mixture, **{"out": str(tmp_path / "out"), **changes}))

    def test_a_missing_folder_of_shards(self, mixture, tmp_path):
        recipe = recipe_of(tmp_path, [{"folder": str(tmp_path / "nothing")}])
        with pytest.raises(DataError, match="nothing"):
            train(Recipe.model_validate(recipe))

    def test_a_logger_that_is_not_installed(self, mixture, tmp_path, monkeypatch):
        monkeypatch.setattr("hourllava.training.run.importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match="names tensorboard, which is not installed"):
            prepare(self.recipe(mixture, tmp_path, log={"to": ["tensorboard"]}), meta=True)

    def test_a_budget_smaller_than_a_sample(self, mixture, tmp_path):
        with pytest.raises(ConfigError, match="more than the token budget of 32"):
            train(self.recipe(mixture, tmp_path, batch={"token_budget": 32, "tokens": 64}))

    def test_a_step_that_processes_cannot_share(self, mixture, tmp_path, monkeypatch):
        monkeypatch.setattr("hourllava.training.run.num_processes", lambda: 3)
        with pytest.raises(ConfigError, match="cannot be shared out equally to 3 ranks"):
            train(self.recipe(mixture, tmp_path))

    def test_data_that_changed_since_the_checkpoint(self, finished, tmp_path):
        out = tmp_path / "out"
        shutil.copytree(finished.out / "checkpoint-4", out / "checkpoint-4")
        with pytest.raises(TrainingError, match="another order of samples"):
            train(finished.model_copy(update={"out": out, "seed": 1}))

    def test_a_checkpoint_that_is_damaged(self, finished, tmp_path):
        out = tmp_path / "out"
        shutil.copytree(finished.out / "checkpoint-4", out / "checkpoint-4")
        for path in (out / "checkpoint-4" / "state").glob("*.distcp"):
            path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="cannot be read back"):
            train(finished.model_copy(update={"out": out}))

    def test_a_gradient_that_is_not_finite_names_its_samples(self, mixture, tmp_path, monkeypatch):
        whole = LanguageModelHead._losses
        calls = []

        def poisoned(self, hidden, targets):
            calls.append(0)
            return whole(self, hidden, targets) * (float("nan") if len(calls) > 6 else 1.0)

        monkeypatch.setattr(LanguageModelHead, "_losses", poisoned)
        with pytest.raises(TrainingError, match=r"gradient of step \d+ is nan; .*\(id r\d+\)"):
            train(self.recipe(mixture, tmp_path))

    def test_a_full_disk_leaves_the_checkpoint_before(self, finished, mixture, tmp_path, monkeypatch):
        def full(folder, model, optimizer):
            (folder).mkdir(parents=True)
            raise OSError(errno.ENOSPC, "No space left on device")

        out = tmp_path / "out"
        shutil.copytree(finished.out / "checkpoint-4", out / "checkpoint-4")
        monkeypatch.setattr(checkpoint_files, "save_state", full)
        with pytest.raises(CheckpointError, match=r"No space left on device.*checkpoint-4 is complete"):
            train(finished.model_copy(update={"out": out}))
        assert [path.name for path in out.iterdir() if "partial" in path.name] == []

    def test_a_recipe_file_with_a_misspelt_key(self, mixture, tmp_path):
        path = write_recipe(tmp_path / "recipe.yaml", recipe_of(*mixture) | {"bacth": {}})
        with pytest.raises(ConfigError, match=r"bacth is not a setting; known are .*batch"):
            load_recipe(path)
