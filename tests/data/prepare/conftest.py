"""The data folder of a user, made once; what several workers write is written in one process."""

import pytest

from data.mixed_world import make_data
from forked_workers import sharding_here


@pytest.fixture(scope="module", autouse=True)
def workers_are_here():
    with sharding_here():
        yield


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """A data folder with raw files only; tests copy it."""
    root = tmp_path_factory.mktemp("raw") / "data"
    make_data(root)
    return root
