"""Decoding processes start at once: how one starts is tested in tests/video."""

import pytest

from forked_decoding import forked_decoding


@pytest.fixture(scope="module", autouse=True)
def decoding_is_forked():
    with forked_decoding():
        yield
