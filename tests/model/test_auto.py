"""transformers' Auto classes, in a fresh interpreter: what registers the model with them."""

import shutil
import subprocess
import sys

import pytest

import hourllava
from conftest import GOLDEN, tiny_model
from hourllava.model.checkpoint import save_weights

CODE = """
import sys
from hourllava import {name}
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
for kind in (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor):
    print(type(kind.from_pretrained(sys.argv[1])).__name__)
"""
NAMES = ["HourLlavaConfig", "HourLlavaModel", "HourLlavaForConditionalGeneration", "HourLlavaProcessor"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as training and export write it."""
    folder = tmp_path_factory.mktemp("exported")
    model = tiny_model().float()
    save_weights(model.config, model.state_dict(), folder)
    shutil.copytree(GOLDEN / "chat" / "tokenizer", folder, dirs_exist_ok=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["load_model", "HourLlavaConfig", "HourLlavaProcessor", "HourLlava"])
def test_whatever_is_imported_first_registers_everything(folder, name):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE.format(name=name), folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == NAMES, done.stderr[-2000:]


def test_every_name_of_the_model_comes_with_the_processor(monkeypatch):
    """The module whose import registers the configuration, the models and the processor."""
    names = [name for name, home in hourllava._HOMES.items() if home.startswith("hourllava.model")]
    assert {"HourLlavaConfig", "load_model"} <= set(names)
    for name in names:
        monkeypatch.delitem(vars(hourllava), name, raising=False)  # kept since its first use
        imported = []
        monkeypatch.setattr(hourllava.importlib, "import_module", lambda module, seen=imported: _seen(module, seen))
        getattr(hourllava, name)
        assert imported[0] == "hourllava.model.processor", name


def _seen(module, seen):
    seen.append(module)
    return sys.modules[module] if module in sys.modules else __import__(module, fromlist=["_"])
