"""Videos that commands in this process decode are decoded by forked processes."""

import pytest

from forked_decoding import forked_decoding


@pytest.fixture(scope="module", autouse=True)
def decoding_is_forked():
    with forked_decoding():
        yield
