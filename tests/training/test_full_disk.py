"""Writes that fail anywhere in a run: an error of one line, nothing half-written, and the next start resumes.

The failures are real: the system limits the size of files, so each library fails in its own way.
"""

import resource
from contextlib import contextmanager

import pytest

from hourllava.errors import CheckpointError, DataError, HourLlavaError
from hourllava.training.export import export_model
from hourllava.training.recipe import Recipe
from hourllava.training.run import train
from training.runs import DEEP, recipe_of, write_texts

WEIGHTS = "final/model.safetensors"
LORA = {"learning_rates": {"*": 0, "*.lora_*": 1e-2}, "lora": {"rank": 4, "alpha": 8}}


@contextmanager
def files_of_at_most(num_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """Recipes of an undisturbed run of all weights, and of one with adapters."""
    root = tmp_path_factory.mktemp("shards")
    streams = [{"folder": str(write_texts(root / "texts"))}]
    made = {}
    for kind, changes in {"full": {}, "lora": LORA}.items():
        schedule = {"epochs": 4, "max_steps": 1}
        made[kind] = recipe_of(root, streams, out=str(root / kind), start=DEEP, schedule=schedule, **changes)
        train(Recipe.model_validate(made[kind]))
    return made


# Smaller than lengths, recipe, torch's parts, tokenizer, adapters or their description, merged weights.
LIMITS = [20, 400, 1_000, 5_000, 20_000, 80_000, 100_000, 200_000, 450_000]
FAST = {("full", 20), ("full", 1_000), ("full", 450_000), ("lora", 200_000)}


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        pytest.param(kind, limit, marks=() if (kind, limit) in FAST else pytest.mark.slow)
        for kind in ("full", "lora")
        for limit in LIMITS
    ],
)
def test_training(recipes, tmp_path, kind, limit, capsys):  # capsys: the limit must not hit a file with printed lines
    recipe = Recipe.model_validate(recipes[kind] | {"out": str(tmp_path / "out")})
    with files_of_at_most(limit), pytest.raises((CheckpointError, DataError), match="cannot be written") as caught:
        train(recipe)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name or path.name.endswith(".tmp")]
    assert not list(tmp_path.glob("out/final"))
    train(recipe)
    undisturbed = recipes[kind]["out"]
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (type(tmp_path)(undisturbed) / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "limit", [20, 1_000, 400_000, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (5_000, 80_000))]
)
def test_export(recipes, tmp_path, limit, capsys):
    with files_of_at_most(limit), pytest.raises(HourLlavaError, match="out cannot be written") as caught:
        export_model(f"{recipes['lora']['out']}/final", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
