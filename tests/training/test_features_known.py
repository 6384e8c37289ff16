"""Training refuses features of another vision tower before its first step."""

import numpy as np
import pytest
import torch

from hourllava.data.batches.loader import read_ledgers
from hourllava.data.batches.samples import RowEncoder
from hourllava.data.features.files import FeatureSettings, check_folder, write_features
from hourllava.data.mds.writer import ShardWriter
from hourllava.errors import ConfigError, DataError
from hourllava.inference.memories.encoder import EncoderIdentity, encoder_identity
from hourllava.inference.memories.memory import Memory, WatchedSource
from hourllava.model.checkpoint import save_weights
from hourllava.training.corpus import open_streams
from hourllava.training.recipe import Recipe, Start
from hourllava.training.run import prepare, train
from hourllava.training.start import load_start
from training.runs import FEATURE_WIDTH, GRID, TINY, recipe_of, record

FROZEN = {"*": 1e-3, "model.vision_tower.*": 0}
OTHER = EncoderIdentity("0123456789ab" * 5, FEATURE_WIDTH, GRID)
FORMS = {"bfloat16": ".safetensors", "int8": ".int8.safetensors", "released": ".pt"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint to start from, and the identity of its tower."""
    folder = tmp_path_factory.mktemp("start")
    model, processor = load_start(Start.model_validate(TINY))
    save_weights(model.config, model.state_dict(), folder)
    processor.tokenizer.save_pretrained(folder)
    return folder, encoder_identity(model.model)


def write(root, form, made_by, *, told=True, count=6, others=()):
    """A stream of features, of the rows `others` from another encoder. `told`: the folder names its encoder."""
    suffix, media = FORMS[form], root / "media"
    media.mkdir(parents=True, exist_ok=True)
    storage = "int8" if form == "int8" else "bfloat16"
    kind = "released" if form == "released" else "memory"
    with ShardWriter(root / "videos", {"video": "str", "text": "json"}) as writer:
        for k in range(count):
            identity = OTHER if k in others else made_by
            settings = FeatureSettings(form=kind, storage=storage, fps=1.0, encoder_digest=identity.digest,
                                       feature_width=FEATURE_WIDTH, grid=GRID)  # fmt: skip
            if told:
                check_folder(media, settings)
            times = np.arange(8) + 0.0
            features = torch.full((8, GRID**2, FEATURE_WIDTH), 1.0 + k).bfloat16()
            memory = Memory(features, times, times, fps=1.0, duration_seconds=8.0, source=WatchedSource("v.mp4"),
                            encoder=identity)  # fmt: skip
            write_features(media / "sub" / f"{k}{suffix}", memory, settings)
            text = record(k, "<image>\nPlus or minus?", "plus") | {"video": f"{k}.mp4"}
            writer.write({"video": f"sub/{k}{suffix}", "text": text})
    return {"folder": str(root / "videos")}


def read_all(recipe, failures):
    """Draw all samples of a run, as training does; the number of micro-batches that are not empty."""
    corpus = prepare(Recipe.model_validate(recipe)).corpus
    return sum(bool((batch["labels"] != -100).any()) for batch in corpus.loader(failures))


def recipe_for(root, stream, checkpoint, **data):
    recipe = recipe_of(root, [stream], learning_rates=FROZEN, start={"checkpoint": str(checkpoint)})
    recipe["data"] |= {"any_encoder": False} | data
    recipe["schedule"] = {"epochs": 1, "max_steps": 1}
    return recipe


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_its_own(self, tmp_path, checkpoint, form):
        recipe = recipe_for(tmp_path, write(tmp_path, form, checkpoint[1]), checkpoint[0])
        assert read_all(recipe, tmp_path / "failures") > 0
        assert not (tmp_path / "failures").exists()

    @pytest.mark.parametrize("form", FORMS)
    def test_those_of_another_tower_of_the_same_shape(self, tmp_path, checkpoint, form):
        recipe = recipe_for(tmp_path, write(tmp_path, form, OTHER), checkpoint[0])
        with pytest.raises(DataError, match="another vision encoder") as caught:
            train(Recipe.model_validate(recipe))
        message = str(caught.value)
        assert OTHER.digest[:12] in message
        assert checkpoint[1].digest[:12] in message
        assert "\n" not in message
        assert not (tmp_path / "run" / "final").exists()
        assert not (tmp_path / "run" / "lengths").exists()  # before anything is measured

    @pytest.mark.parametrize(
        "form", ["released", *(pytest.param(f, marks=pytest.mark.slow) for f in ("bfloat16", "int8"))]
    )
    def test_unless_the_recipe_takes_any(self, tmp_path, checkpoint, form):
        stream = write(tmp_path, form, OTHER)
        train(Recipe.model_validate(recipe_for(tmp_path, stream, checkpoint[0], any_encoder=True)))


def test_a_dry_run_has_no_tower_to_compare_with(tmp_path, checkpoint):
    recipe = Recipe.model_validate(recipe_for(tmp_path, write(tmp_path, "bfloat16", OTHER), checkpoint[0]))
    assert prepare(recipe, meta=True).corpus.plan.samples_per_epoch == 6


def test_every_file_is_looked_at(tmp_path, checkpoint):
    """One bad file in the middle of a stream, which the check of a few files misses."""
    stream = write(tmp_path, "bfloat16", checkpoint[1], told=False, count=40, others=[7])
    recipe = recipe_for(tmp_path, stream, checkpoint[0], max_failed_share=0.5)
    assert read_all(recipe | {"schedule": {"epochs": 1}}, tmp_path / "failures") > 0
    (failure,) = read_ledgers(tmp_path / "failures")
    assert failure.sample == 7


def test_a_file_that_was_replaced_after_it_was_measured(tmp_path, checkpoint):
    recipe = Recipe.model_validate(recipe_for(tmp_path, write(tmp_path, "bfloat16", checkpoint[1]), checkpoint[0]))
    corpus = prepare(recipe).corpus
    path = tmp_path / "media" / "sub" / "3.safetensors"
    times = np.arange(8) + 0.0
    features = torch.ones(8, GRID**2, FEATURE_WIDTH).bfloat16()
    Memory(features, times, times, fps=1.0, duration_seconds=8.0, source=WatchedSource("v.mp4"), encoder=OTHER).save(
        path
    )
    encode = RowEncoder(corpus.encoder.processor, corpus.encoder.media_root, encoder=checkpoint[1])
    assert encode(corpus.datasets[0][2], 0)
    with pytest.raises(DataError, match=r"sub/3\.safetensors holds features of another vision encoder"):
        encode(corpus.datasets[0][3], 0)


def test_released_files_that_nobody_tells_about_are_taken_and_it_is_said(tmp_path, checkpoint, caplog):
    recipe = recipe_for(tmp_path, write(tmp_path, "released", OTHER, told=False), checkpoint[0])
    prepare(Recipe.model_validate(recipe))
    assert "features of stream videos do not say which vision encoder made them" in caplog.text


@pytest.mark.parametrize("rates", [{"*": 1e-3}, FROZEN | {"model.vision_tower.encoder.layers.0.*": 1e-4}])
def test_a_tower_that_is_trained_does_not_stay_that_of_its_features(tmp_path, checkpoint, rates):
    recipe = recipe_for(tmp_path, write(tmp_path, "bfloat16", checkpoint[1]), checkpoint[0])
    for meta in (False, True):
        with pytest.raises(ConfigError, match="learning_rates train the vision tower, but stream videos holds feat"):
            prepare(Recipe.model_validate(recipe | {"learning_rates": rates}), meta=meta)


def test_which_rows_are_features_is_looked_up_row_by_row(tmp_path, checkpoint):
    names = ["a.safetensors", "b.mp4", "c.pt", "d.world.json", "e.int8.safetensors"] * 3
    with ShardWriter(tmp_path / "mixed", {"video": "str", "text": "json"}) as writer:
        for k, name in enumerate(names):
            writer.write({"video": name, "text": record(k, "<image>\nQ?", "a")})
    data = recipe_of(tmp_path, [{"folder": str(tmp_path / "mixed")}])
    (stream,) = open_streams(Recipe.model_validate(data).data)
    assert stream.kinds.is_video.all()
    assert stream.kinds.encoded.tolist() == [name.endswith((".safetensors", ".pt")) for name in names]
