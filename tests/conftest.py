"""Tiny models and inputs that every test may use."""

import atexit
import functools
import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from forking import forked_interpreter
from forking_server import flush_nothing
from hourllava.processes import usable_cores
from tiny import tiny_config, tiny_model

if TYPE_CHECKING:  # imported where it is used: with `pytest -n`, the process that hands out the tests needs none of it
    from hourllava.model.modeling import HourLlavaForConditionalGeneration
    from hourllava.model.processor import HourLlavaProcessor

GOLDEN = Path(__file__).parent / "parity" / "golden"
MEMORY_PER_WORKER_BYTES = 3 * 2**29

os.environ.setdefault("OMP_NUM_THREADS", "1")
flush_nothing()  # a test of flushing puts its own in this place


def pytest_configure(config: pytest.Config) -> None:
    """In the fast tier, properties are tried on few examples, the same ones each time; in the others on all.

    No example has a deadline: a machine that does other work besides is no failure.
    """
    is_fast = "not slow" in config.option.markexpr
    settings.register_profile("tier", deadline=None, derandomize=is_fast, max_examples=20 if is_fast else 100)
    settings.load_profile("tier")


def examples(number: int, **more: Any) -> settings:
    """The number of examples of a property in the slow tier, in place of 100; the fast tier tries a fifth of them."""
    return settings(max_examples=max(number * settings.default.max_examples // 100, 5), **more)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """With `-n auto`, one process more than there are cores, if memory allows: many tests wait for other processes."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(usable_cores() + 1, memory_bytes // MEMORY_PER_WORKER_BYTES))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process tests that stand side by side: what a module or a folder shares is made in one of them only."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Fork the processes that run the tests from one that has imported the libraries."""
    for spec in specs:
        spec.python = forked_interpreter()


def pytest_collection_finish() -> None:
    """Keep the million objects of the imported libraries out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@functools.cache
def tiny_checkpoint() -> Path:
    """A random checkpoint with nano's tokenizer, for tests in which any model will do: a hundredth of nano's work."""
    from hourllava.model.checkpoint import save_weights
    from hourllava.model.nano import nano_tokenizer

    config = tiny_config(visual_token_id=2047)
    config.text_config.vocab_size = 2048
    config.vision_config.num_hidden_layers = 2
    model = tiny_model(config).float()
    folder = Path(_temporary_folder())
    save_weights(config, model.state_dict(), folder)
    nano_tokenizer().save_pretrained(folder)
    return folder


@functools.cache
def _temporary_folder() -> str:
    folder = tempfile.mkdtemp(prefix="hourllava-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(GOLDEN / "chat" / "tokenizer")


@pytest.fixture(scope="session")
def local_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint in the released layout, with a tokenizer, in place of those on the hub."""
    folder = tmp_path_factory.mktemp("checkpoint")
    for source in (GOLDEN / "tiny_pixels", GOLDEN / "chat" / "tokenizer"):
        shutil.copytree(source, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def model() -> "HourLlavaForConditionalGeneration":
    """One model for all tests, which must leave it as it is."""
    return tiny_model()


@pytest.fixture(scope="session")
def processor(tokenizer: Any) -> "HourLlavaProcessor":
    from hourllava.model.processor import HourLlavaProcessor

    return HourLlavaProcessor(tokenizer, tiny_config())
