"""Which class opens the files of a suffix."""

import subprocess

import pytest

import hourllava  # noqa: F401 - registers the world's opener
from hourllava import openers
from hourllava.errors import ConfigError
from hourllava.openers import load_opener, opener_of, register_opener


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(openers, "_OPENERS", dict(openers._OPENERS))


def test_a_suffix_has_one_opener():
    register_opener(".one", "subprocess:Popen")
    register_opener(".one", "subprocess:Popen")
    with pytest.raises(
        ConfigError, match=r"\.one is opened by subprocess:Popen, so a:B cannot open it: choose another suffix"
    ):
        register_opener(".one", "a:B")
    assert opener_of("video.one") == "subprocess:Popen"
    assert opener_of("one") is None
    assert load_opener("subprocess:Popen") is subprocess.Popen


def test_the_world_is_opened_by_its_own_class():
    assert load_opener(opener_of("a.world.json")).__name__ == "RenderedVideo"
