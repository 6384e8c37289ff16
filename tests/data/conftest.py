"""Videos are decoded by forked processes here: how a decoding process starts is tested in tests/video."""

import pytest

from forked_decoding import forked_decoding


@pytest.fixture(scope="module", autouse=True)
def decoding_is_forked():
    with forked_decoding():
        yield
