"""Decoding processes and the workers of pools are forked here: how they start is tested elsewhere."""

import pytest

from forked_decoding import forked_decoding
from forked_workers import forked_workers


@pytest.fixture(scope="module", autouse=True)
def decoding_is_forked():
    with forked_decoding(), forked_workers():
        yield
