"""The data folder of a user, made once."""

import pytest

from data.mixed_world import make_data


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """A data folder with raw files only; tests copy it."""
    root = tmp_path_factory.mktemp("raw") / "data"
    make_data(root)
    return root
