"""A run that learns nothing ends with an error. Skipped samples are counted over all processes, and reported."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from hourllava.data.batches.loader import MAX_FAILED_SHARE_OF_FEW, NO_TARGET, Allowance
from hourllava.data.mds.writer import ShardWriter
from hourllava.errors import ConfigError, DataError, TrainingError
from hourllava.training import checkpoints as checkpoint_files
from hourllava.training.recipe import Recipe
from hourllava.training.run import prepare, train
from hourllava.training.start import load_start
from training import runs
from training.runs import LAST_ONLY, TINY, run, start, write_images, write_recipe, write_texts, write_videos

LIMIT = 60
LONG = "What is said here? " * 40


def videos(root: Path, count: int) -> Path:
    return write_videos(root / "videos", root / "media", count=count)


def texts(root: Path, lengths: str) -> Path:
    """Text records: `s` is short, the question of `l` alone exceeds the model's limit."""
    with ShardWriter(root / "texts", {"image": "jpeg", "text": "json"}) as writer:
        for k, kind in enumerate(lengths):
            question = LONG if kind == "l" else f"Say {k}."
            turns = [{"from": "human", "value": question}, {"from": "gpt", "value": str(k)}]
            writer.write({"image": Image.new("RGB", (1, 1)), "text": {"id": f"r{k}", "conversations": turns}})
    return root / "texts"


def recipe_of(root: Path, streams: list[dict], **changes) -> dict:
    return runs.recipe_of(root, streams, **{"checkpoints": LAST_ONLY, **changes})


def recipe_for(root: Path, folder: Path, **changes) -> dict:
    recipe = recipe_of(root, [{"folder": str(folder)}], **changes)
    recipe["start"] = TINY | {"model": TINY["model"] | {"max_sequence_tokens": LIMIT}}
    return recipe


def beginning(recipe: dict) -> dict:
    torch.manual_seed(0)
    return load_start(Recipe.model_validate(recipe).start)[0].state_dict()


def final(recipe: dict) -> dict:
    return load_file(Path(recipe["out"]) / "final" / "model.safetensors")


def history(recipe: dict) -> list[dict]:
    newest = checkpoint_files.checkpoints(Path(recipe["out"]))[-1]
    return json.loads((newest / "trainer_state.json").read_text())["log_history"]


def fail(recipe: dict, message: str, error: type[Exception]):
    with pytest.raises(error, match=message) as caught:
        train(Recipe.model_validate(recipe))
    assert "\n" not in str(caught.value)
    assert not (Path(recipe["out"]) / "final").exists()


class TestUnreadable:
    @pytest.mark.parametrize("count", [1, 2, 8, 12])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_no_media(self, tmp_path, count, workers):
        recipe = recipe_of(tmp_path, [{"folder": str(videos(tmp_path, count))}])
        recipe["data"] |= {"media": str(tmp_path / "elsewhere"), "workers": workers}
        fail(recipe, rf"^{count} of {count} rows of stream videos cannot be read.*No such file.*elsewhere", DataError)

    @pytest.mark.parametrize(("count", "bad"), [(2, 2), (8, 7), (12, 9), (12, 2)])
    def test_most_media_are_missing(self, tmp_path, count, bad):
        recipe = recipe_of(tmp_path, [{"folder": str(videos(tmp_path, count))}])
        for k in range(bad):
            (tmp_path / "media" / f"{k}.safetensors").unlink()
        fail(recipe, rf"^{bad} of {count} rows of stream videos cannot be read", DataError)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_media_that_are_gone_after_they_were_measured(self, tmp_path, workers):
        recipe = recipe_of(tmp_path, [{"folder": str(videos(tmp_path, 12))}])
        recipe["data"]["workers"] = workers
        prepare(Recipe.model_validate(recipe))
        for k in range(9):
            (tmp_path / "media" / f"{k}.safetensors").write_bytes(b"x" * 100)
        fail(recipe, r"\d+ of \d+ samples (failed|could not be read), more than", DataError)

    @pytest.mark.slow
    def test_an_accident_is_said_and_passed_over(self, tmp_path, capsys):
        recipe = recipe_of(tmp_path, [{"folder": str(videos(tmp_path, 12))}], schedule={"epochs": 3})
        (tmp_path / "media" / "3.safetensors").unlink()
        train(Recipe.model_validate(recipe))
        told = capsys.readouterr().err
        assert "skipped: 1 samples could not be read, 0 had no supervised token; they were drawn 3 times" in told
        assert "| 3 samples skipped |" in told
        assert [entry["skipped_samples"] for entry in history(recipe)][-1] == 3
        lines = (tmp_path / "run" / "failures" / "failures.jsonl").read_text().splitlines()
        assert {json.loads(line)["sample"] for line in lines} == {3}

    def test_the_share_is_the_users(self, tmp_path):
        recipe = recipe_of(tmp_path, [{"folder": str(videos(tmp_path, 8))}], schedule={"max_steps": 1})
        for k in range(6):
            (tmp_path / "media" / f"{k}.safetensors").unlink()
        recipe["data"]["max_failed_share"] = 0.75
        train(Recipe.model_validate(recipe))
        assert (tmp_path / "run" / "failures" / "failures.jsonl").read_text()

    @pytest.mark.slow
    def test_counts_of_all_processes_are_added_up_and_kept(self, tmp_path):
        recipe = recipe_of(tmp_path, [{"folder": str(write_texts(tmp_path / "texts", 24))}], schedule={"epochs": 2})
        recipe |= {"parallel": {"kind": "ddp"}, "batch": {"token_budget": 160, "tokens": 320, "multiple_of": 2}}
        recipe["data"]["streams"].append({"folder": str(videos(tmp_path, 24))})
        recipe["batch"]["token_budget"] = 512
        for k in (2, 7):
            (tmp_path / "media" / f"{k}.safetensors").unlink()
        told = run(write_recipe(tmp_path / "recipe.yaml", recipe | {"checkpoints": {"every_steps": 1}}), processes=2)
        assert "skipped: 2 samples could not be read, 0 had no supervised token; they were drawn 4 times" in told
        assert [entry["skipped_samples"] for entry in history(recipe)][-1] == 4
        kept = json.loads((checkpoint_files.checkpoints(tmp_path / "run")[0] / "plan.json").read_text())["tally"]
        shutil.rmtree(tmp_path / "run" / "final")
        shutil.rmtree(checkpoint_files.checkpoints(tmp_path / "run")[-1])
        train(Recipe.model_validate(recipe))
        assert [entry["skipped_samples"] for entry in history(recipe)][-1] == 4
        assert kept["failed"] <= 4


class TestNoTarget:
    @pytest.mark.parametrize(
        ("count", "changes"),
        [
            (1, {}),
            pytest.param(6, {}, marks=pytest.mark.slow),
            pytest.param(1, {"schedule": {"max_steps": 1, "epochs": 9}}, marks=pytest.mark.slow),
            (6, {"schedule": {"max_steps": 1, "epochs": 9}}),
        ],
    )
    def test_the_limit_cuts_all_answers(self, tmp_path, count, changes):
        recipe = recipe_for(tmp_path, texts(tmp_path, "l" * count), **changes)
        fail(recipe, r"^there is nothing to learn from: .* have no supervised token; .*cut off", TrainingError)
        fail(recipe, r"^there is nothing to learn from", TrainingError)  # started again it does not pass for finished

    @pytest.mark.slow
    def test_it_is_never_saved_as_trained(self, tmp_path):
        batch = {"token_budget": LIMIT, "samples": 1, "multiple_of": 1}
        recipe = recipe_for(tmp_path, texts(tmp_path, "l" * 6), batch=batch, checkpoints={"every_steps": 3})
        fail(recipe, "nothing to learn from: of 6 samples 0 could not be read and 6 have no supervised", TrainingError)
        fail(recipe, "nothing to learn from", TrainingError)

    @pytest.mark.slow
    @pytest.mark.parametrize("lengths", ["lsssss", "lllsss", "llllls"])
    def test_part_of_them_are_counted_and_said(self, tmp_path, lengths, capsys):
        batch = {"token_budget": LIMIT, "samples": 1, "multiple_of": 1}
        recipe = recipe_for(tmp_path, texts(tmp_path, lengths), batch=batch, schedule={"epochs": 2})
        train(Recipe.model_validate(recipe))
        num_long = lengths.count("l")
        told = capsys.readouterr().err
        assert f"skipped: 0 samples could not be read, {num_long} had no supervised token" in told
        assert f"they were drawn {2 * num_long} times" in told
        lines = (tmp_path / "run" / "failures" / "failures.jsonl").read_text().splitlines()
        assert {json.loads(line)["error"] for line in lines} == {NO_TARGET}

    def test_a_step_of_which_nothing_is_left_changes_nothing(self, tmp_path, capsys):
        """No decay, no momentum: one step learns, the others are empty."""
        batch = {"token_budget": LIMIT, "samples": 1, "multiple_of": 1}
        trained = []
        for name, lengths in {"one": "s", "many": "slll"}.items():
            root = tmp_path / name
            recipe = recipe_for(root, texts(root, lengths), batch=batch, schedule={"kind": "constant", "warmup": 0.0})
            recipe |= {"optimizer": {"weight_decay": 0.5}, "learning_rates": {"*": 1e-2}}
            train(Recipe.model_validate(recipe))
            trained.append(final(recipe))
        assert capsys.readouterr().err.count("nothing to learn from, 1 of 1 samples skipped") == 3
        assert any(not torch.equal(tensor, beginning(recipe)[name]) for name, tensor in trained[0].items())
        for name, tensor in trained[0].items():
            torch.testing.assert_close(trained[1][name], tensor, atol=1e-6, rtol=1e-5)


class TestEmptyStream:
    def empty(self, tmp_path):
        folder = tmp_path / "none"
        with ShardWriter(folder, {"image": "jpeg", "text": "json"}):
            pass
        return {"folder": str(folder)}

    @pytest.mark.parametrize("others", [[], ["texts"]])
    @pytest.mark.parametrize("amount", [{}, {"repeat": 2.0}, {"choose": 3}])
    def test_it_is_an_error(self, tmp_path, others, amount):
        write_texts(tmp_path / "texts")
        streams = [self.empty(tmp_path) | amount, *({"folder": str(tmp_path / name)} for name in others)]
        fail(recipe_of(tmp_path, streams), "none holds no rows", DataError)

    def test_so_it_is_in_validation(self, tmp_path):
        write_texts(tmp_path / "texts")
        validation = {"streams": [self.empty(tmp_path)]}
        recipe = recipe_of(tmp_path, [{"folder": str(tmp_path / "texts")}], validation=validation)
        fail(recipe, "none holds no rows", DataError)

    def test_unless_it_is_left_out_on_purpose(self, tmp_path):
        write_texts(tmp_path / "texts")
        streams = [self.empty(tmp_path) | {"choose": 0}, {"folder": str(tmp_path / "texts")}]
        assert prepare(Recipe.model_validate(recipe_of(tmp_path, streams)), meta=True).num_steps > 0

    def test_all_left_out(self, tmp_path):
        write_texts(tmp_path / "texts")
        recipe = recipe_of(tmp_path, [{"folder": str(tmp_path / "texts"), "choose": 0}])
        fail(recipe, "the streams give no samples", ConfigError)


class TestValidation:
    def recipe(self, tmp_path, count):
        write_images(tmp_path / "images")
        validation = {"streams": [{"folder": str(videos(tmp_path, count))}], "answers": 2, "max_new_tokens": 2}
        recipe = recipe_of(tmp_path, [{"folder": str(tmp_path / "images")}], schedule={"max_steps": 2, "epochs": 4})
        return recipe | {"validation": validation | {"every_steps": 1}}

    def test_a_record_that_cannot_be_read_is_passed_over(self, tmp_path, capsys):
        recipe = self.recipe(tmp_path, 4)
        prepare(Recipe.model_validate(recipe))
        (tmp_path / "media" / "0.safetensors").write_bytes(b"damaged")
        train(Recipe.model_validate(recipe))
        printed = capsys.readouterr()
        assert printed.out.count("(truth 'plus')") == 2  # of records 1 and 2 in each of two steps
        assert printed.out.count("(truth 'minus')") == 2
        assert "validation: 1 samples skipped" in printed.err
        assert all(entry["validation_loss"] > 0 for entry in history(recipe) if "validation_loss" in entry)

    def test_no_record_can_be_read_any_more(self, tmp_path, capsys):
        recipe = self.recipe(tmp_path, 4)
        prepare(Recipe.model_validate(recipe))
        for path in (tmp_path / "media").iterdir():
            path.unlink()
        train(Recipe.model_validate(recipe))
        assert "4 samples skipped, and nothing is left to measure" in capsys.readouterr().err
        assert not any("validation_loss" in entry for entry in history(recipe))

    def test_no_record_can_be_read_from_the_first(self, tmp_path):
        recipe = self.recipe(tmp_path, 4)
        shutil.rmtree(tmp_path / "media")
        fail(recipe, r"4 of 4 rows of stream videos cannot be read", DataError)


class TestAllowance:
    @given(st.integers(1, 10**7), st.floats(1e-4, 0.5))
    def test_of_many_it_is_the_share(self, count, share):
        most = Allowance(share, count).most(count)
        assert most >= share * count
        if count >= 1000:
            assert most == pytest.approx(share * count)

    @given(st.integers(1, 999))
    def test_of_few_it_is_a_tenth_at_most_and_always_one(self, count):
        most = Allowance(0.01, count).most(count)
        assert 1 <= most <= max(MAX_FAILED_SHARE_OF_FEW * count, 1)

    @given(st.integers(2, 5000), st.integers(1, 200), st.data())
    def test_a_bad_sample_of_every_epoch_is_the_same_accident(self, count, epochs, data):
        drawn = data.draw(st.integers(1, count * epochs))
        most = Allowance(0.01, count).most(drawn)
        assert most >= -(-drawn // count)
        assert most <= max(0.01 * drawn, max(1.0, min(0.1 * count, 10)) * -(-drawn // count))

    def test_none_may_be_allowed(self):
        assert Allowance(0.0, 50).most(50) == 0


@pytest.mark.slow
def test_two_starts_at_once_do_not_share_a_folder(tmp_path):
    recipe = runs.recipe_of(tmp_path, [{"folder": str(write_texts(tmp_path / "texts"))}], schedule={"epochs": 2000})
    path = write_recipe(tmp_path / "recipe.yaml", recipe)
    with start(path) as first:
        while not checkpoint_files.checkpoints(tmp_path / "run"):
            assert first.poll() is None, first.stderr
        with pytest.raises(DataError, match="is being written by another process"):
            train(Recipe.model_validate(recipe))
