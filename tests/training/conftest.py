"""Shards, and a run on them, that all tests of training may read; a test that changes a run's folder copies it.

Videos are decoded by forked processes here: how one starts is tested in tests/video.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from forked_decoding import forked_decoding
from hourllava.training.recipe import Recipe
from hourllava.training.run import train
from training.runs import recipe_of, write_mixture


@pytest.fixture(scope="session", autouse=True)
def imported_modules_are_not_collected():
    """Every run ends with a full garbage collection, which would visit 700,000 objects of imported modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def decoding_is_forked() -> Iterator[None]:
    with forked_decoding():
        yield


@pytest.fixture(scope="session")
def mixture(tmp_path_factory) -> tuple[Path, list[dict]]:
    """A folder with shards of pictures, texts and videos, and the streams of a recipe that reads them."""
    root = tmp_path_factory.mktemp("shards")
    return root, write_mixture(root)


@pytest.fixture(scope="session")
def finished(mixture, tmp_path_factory) -> Recipe:
    """The recipe of a run from beginning to end: six steps, with checkpoints at the fourth and the sixth."""
    root, streams = mixture
    recipe = Recipe.model_validate(recipe_of(root, streams, out=str(tmp_path_factory.mktemp("run") / "out")))
    train(recipe)
    return recipe
