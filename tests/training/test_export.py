"""Exported checkpoints: both layouts load as the same model, and the card names the origin."""

import errno
import shutil

import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerBase

from conftest import GOLDEN
from hourllava.errors import CheckpointError
from hourllava.inference.engine import HourLlava
from hourllava.model.checkpoint import is_released_layout, load_model
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training import export
from hourllava.training.export import export_model
from hourllava.training.recipe import Recipe, load_recipe
from hourllava.training.run import train
from training.runs import recipe_of, write_videos


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """The final folder of a run of one step that started from the end of `finished`."""
    root = tmp_path_factory.mktemp("runs")
    write_videos(root / "shards", root / "media", count=4)
    recipe = recipe_of(root, [{"folder": str(root / "shards")}], schedule={"max_steps": 1})
    recipe["start"] = {"checkpoint": str(finished.out / "final")}
    return train(Recipe.model_validate(recipe))


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "my-model"
    export_model(str(trained), out)
    return out


class TestOurs:
    def test_the_weights_are_the_same(self, trained, exported):
        before, after = load_model(trained)[0], load_model(exported)[0]
        assert before.dtype == after.dtype
        assert all(torch.equal(after.state_dict()[name], tensor) for name, tensor in before.state_dict().items())

    def test_transformers_and_the_engine_read_it(self, exported):
        model = AutoModelForImageTextToText.from_pretrained(exported)
        assert isinstance(AutoProcessor.from_pretrained(exported), HourLlavaProcessor)
        assert model.config.forgetting.spatial == "random"
        assert HourLlava.from_pretrained(str(exported))

    def test_the_card_says_what_it_is_and_where_it_comes_from(self, finished, trained, exported):
        card = (exported / "README.md").read_text()
        assert front_matter(exported)["library_name"] == "hourllava"
        assert front_matter(exported)["pipeline_tag"] == "video-text-to-text"
        assert f"Started from `{finished.out / 'final'}`, which started from `hourllava-nano`" in card
        assert "trained on `" in card
        inside = card.split("```yaml\n")[1].split("```")[0]
        (exported.parent / "again.yaml").write_text(inside)
        assert load_recipe(exported.parent / "again.yaml") == load_recipe(trained / "recipe.yaml")
        assert (exported / "recipe.yaml").read_bytes() == (trained / "recipe.yaml").read_bytes()

    def test_a_start_on_the_hub_is_the_base_model(self, trained, tmp_path):
        recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
        recipe["start"] = {"checkpoint": "jylins/hourllava-qwen25-3b-s3"}
        copy = shutil.copytree(trained, tmp_path / "copy")
        (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        export_model(str(copy), tmp_path / "out")
        assert front_matter(tmp_path / "out")["base_model"] == "jylins/hourllava-qwen25-3b-s3"

    def test_a_checkpoint_without_a_recipe_gets_a_card_too(self, trained, tmp_path):
        copy = shutil.copytree(trained, tmp_path / "copy", ignore=shutil.ignore_patterns("recipe.yaml"))
        export_model(str(copy), tmp_path / "out")
        assert "## Training" not in (tmp_path / "out" / "README.md").read_text()


class TestReleased:
    def test_it_is_the_released_layout_of_the_same_model(self, tmp_path):
        for source in (GOLDEN / "tiny_pixels", GOLDEN / "chat" / "tokenizer"):
            shutil.copytree(source, tmp_path / "model", dirs_exist_ok=True)
        export_model(str(tmp_path / "model"), tmp_path / "ours")
        export_model(str(tmp_path / "ours"), tmp_path / "released", released=True)
        assert not is_released_layout(tmp_path / "ours")
        assert is_released_layout(tmp_path / "released")
        before, after = (
            load_file(tmp_path / "model/model.safetensors"),
            load_file(tmp_path / "released/model.safetensors"),
        )
        assert set(before) >= set(after)
        assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
        assert HourLlava.from_pretrained(str(tmp_path / "released"))


class TestWrong:
    def test_what_the_released_layout_cannot_say(self, trained, tmp_path):
        with pytest.raises(CheckpointError, match="the released layout cannot say that video_grid is 2"):
            export_model(str(trained), tmp_path / "out", released=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_in_use(self, trained):
        with pytest.raises(CheckpointError, match="is not empty; choose a new folder"):
            export_model(str(trained), trained.parent)

    def test_a_folder_that_cannot_be_made(self, trained, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointError, match="cannot be written"):
            export_model(str(trained), tmp_path / "file" / "out")

    @pytest.mark.parametrize("part", ["weights", "tokenizer", "card"])
    def test_a_full_disk(self, trained, tmp_path, monkeypatch, part):
        """Each library reports it in its own way."""

        def full(*args, **kwargs):
            reason = "No space left on device (os error 28)"
            if part == "weights":
                raise SafetensorError(f"Error while serializing: I/O error: {reason}")
            if part == "tokenizer":
                raise Exception(reason)  # as the tokenizers library does
            raise OSError(errno.ENOSPC, "No space left on device")

        places = {"weights": (export, "save_weights"), "card": (export, "model_card")}
        target, name = places.get(part, (PreTrainedTokenizerBase, "save_pretrained"))
        monkeypatch.setattr(target, name, full)
        with pytest.raises(CheckpointError, match=r"out cannot be written \(.*No space left on device.*free") as error:
            export_model(str(trained), tmp_path / "out")
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("content", [b"\xff", b"[1", b"- a", b"start: 3", b"start: {}\ndata: {streams: [3]}"])
    def test_a_recipe_that_is_damaged(self, trained, tmp_path, content):
        copy = shutil.copytree(trained, tmp_path / "copy")
        (copy / "recipe.yaml").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"recipe\.yaml is not a recipe") as error:
            export_model(str(copy), tmp_path / "out")
        assert "\n" not in str(error.value)

    def test_no_checkpoint(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(CheckpointError, match="there is no folder"):
            export_model(str(tmp_path / "nothing"), tmp_path / "out")
