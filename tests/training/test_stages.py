"""The nano recipes in miniature: stages 0 to 3 on MarathonWorld, each from the stage before, then a question."""

import json
import shutil

import pytest
import torch

from forking import run_hourllava
from hourllava.data.prepare.mixtures import Sampling
from hourllava.data.prepare.shard import ShardSettings, shard_records
from hourllava.model.checkpoint import load_model
from hourllava.training.checkpoints import checkpoints
from hourllava.training.export import export_model
from hourllava.training.recipe import load_recipe
from hourllava.training.run import train
from hourllava.world.making.make import make_settings, make_world
from hourllava.world.making.pictures import make_picture_settings, make_pictures

SMALLER = {
    "text_config": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "video_grid": 2,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Shards of texts, images, sets of images, and questions about short and longer videos."""
    root = tmp_path_factory.mktemp("world")
    make_pictures(make_picture_settings(24, 8, 24, 2, 0, "train", 64), root / "pictures", processes=1)
    minutes_of = {"cards": "0.1", "short": "0.25", "deck": "0.25", "acts": "0.4", "deeds": "0.5",
                  "paint": "0.4", "mid": "0.5", "far": "0.5", "long": "1",
                  "hours": "1"}  # fmt: skip
    for seed, (name, minutes) in enumerate(minutes_of.items()):
        settings = make_settings(2, minutes, seed, "train", "normal", None, 1, "both", 64, "reference")
        make_world(settings, root / name, processes=1)
        shutil.copytree(root / name / "videos", root / "media", dirs_exist_ok=True)
    for name, records, media, kind in (
        ("text", "pictures/jsons/text.json", "pictures/images", "image"),
        ("image", "pictures/jsons/image.json", "pictures/images", "image"),
        ("images", "pictures/jsons/images.json", "pictures/images", "images"),
        *((name, f"{name}/jsons/videomarathon.json", f"{name}/videos", "video") for name in minutes_of),
    ):
        sources = ((root / records, Sampling.parse("first:40%" if kind == "video" else "all")),)
        shard_records(ShardSettings(sources, kind, root / media), root / "shards" / name)
    return root


def run_stage(world, runs, stage):
    """Train a shipped recipe on the small world with a small model; the losses."""
    streams = load_recipe(f"recipes/hourllava-nano/s{stage}.yaml").data.streams
    folders = [{"folder": str(world / "shards" / stream.folder.rpartition("/")[2])} for stream in streams]
    changes = {
        "out": str(runs / f"s{stage}"),
        "data.streams": folders,
        "data.media": str(world / "media"),
        "data.workers": 0,
        "batch": {"token_budget": 2048, "samples": None, "tokens": 4096, "multiple_of": 2},
        "schedule": {"max_steps": 10, "epochs": 40},
        "precision": "fp32",
        "compile": False,
        "log": {"every_steps": 1, "to": []},
    }
    if stage:
        changes["start.checkpoint"] = str(runs / f"s{stage - 1}" / "final")
    else:
        changes |= {f"start.model.{key}": value for key, value in SMALLER.items()}
    recipe = load_recipe(
        f"recipes/hourllava-nano/s{stage}.yaml", [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    )
    train(recipe)
    newest = checkpoints(recipe.out)[-1]
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    # MarathonWorld has evidence spans for videos; stages 0 and 1 train on pictures.
    assert all(("evidence_share" in entry) == (stage > 1) for entry in history if "loss" in entry)
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.slow
def test_stages_follow_each_other_and_the_model_answers(world, tmp_path):
    first_losses = run_stage(world, tmp_path, 0)
    assert first_losses[-1] < first_losses[0] - 0.3
    later = [run_stage(world, tmp_path, stage) for stage in (1, 2, 3)]
    assert all(losses[-1] < losses[0] for losses in later[1:])
    assert later[2][0] < first_losses[0] - 0.3  # stage 3 starts from what earlier stages learnt

    model, report = load_model(tmp_path / "s3" / "final")
    assert (model.config.memaug.num_blocks, model.config.memaug.num_recall_tokens) == (4, 64)
    assert not report.fresh
    newline, recall_tokens = model.model.image_newline, model.model.memaug.recall_tokens
    assert not torch.equal(recall_tokens, newline.expand_as(recall_tokens))  # they have learnt
    export_model(str(tmp_path / "s3" / "final"), tmp_path / "model")
    make_world(
        make_settings(1, "0.25", 1, "test", "normal", None, 1, "both", 64, "mp4"), tmp_path / "video", processes=1
    )
    video = next((tmp_path / "video" / "videos" / "marathonworld").glob("*.mp4"))
    answered = run_hourllava(
        "ask", video, "Which letter is shown?", "--model", tmp_path / "model", "--max-new-tokens", "4", "--json",
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert answered.returncode == 0, answered.stderr
    assert isinstance(json.loads(answered.stdout)["answers"][0]["text"], str)
