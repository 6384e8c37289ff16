"""Videos are decoded by forked processes here: how one starts is tested in tests/video. Pictures are drawn in small."""

import pytest

from forked_decoding import forked_decoding
from hourllava import plotting


@pytest.fixture(scope="module", autouse=True)
def cheap_files():
    with forked_decoding(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "_DPI", 50)
        yield
