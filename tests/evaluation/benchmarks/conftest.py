"""What all tests of public benchmarks share: figures are drawn only where they are tested."""

import pytest

from hourllava.evaluation.benchmarks import outcome


@pytest.fixture(autouse=True)
def no_figure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes half a second; a test that wants it asks for the fixture `figure`."""
    if "figure" not in request.fixturenames:
        monkeypatch.setattr(outcome, "write_figures", lambda benchmark, title, scores, scored, out: ())


@pytest.fixture
def figure() -> None:
    """The scores are drawn."""
