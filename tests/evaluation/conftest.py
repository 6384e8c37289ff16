"""What all tests of evaluation share: cheap decoding and drawing, and benchmarks/ablations.py as a module."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from forked_decoding import forked_decoding
from hourllava import plotting
from hourllava.evaluation import figures

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def ablations():
    """benchmarks/ablations.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("ablations")


@pytest.fixture(autouse=True, scope="module")
def cheap_files() -> Iterator[None]:
    """Files are decoded in forked processes, and pictures are drawn in small."""
    with forked_decoding(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "_DPI", 20)
        yield


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations draw no figures, for tests of something else."""
    monkeypatch.setattr(figures, "write_figures", lambda scores, answered, out: [])
