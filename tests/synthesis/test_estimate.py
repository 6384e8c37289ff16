"""Estimates: measured on the videos that are done, a guess before; and the command's lines."""

import re

import pytest

from forked_decoding import forked_decoding
from hourllava.synthesis.command import SynthOptions
from hourllava.synthesis.estimate import KINDS, run_estimate
from hourllava.synthesis.job import Cast
from hourllava.synthesis.prompting import PROMPTS
from synthesis.model_server import ModelServer
from synthesis.runs import FAST, MODEL, synthesise, write_world

SETTINGS = FAST | {
    "questions": {"per_task": 1, "tasks": ["Object Attribute", "Temporal Order", "Spatial Perception"]},
    "prices": {MODEL: {"prompt": 1.0, "completion": 2.0}},
}


def estimated(videos, out, address):
    """(tokens read, tokens written, lines) of `--dry-run`."""
    model = f"{MODEL}@{address}"
    options = SynthOptions(
        [videos], out, Cast(model, model, f"other-model@{address}"), shows_progress=False,
        settings=out.with_name(f"{out.name}.yaml"),
    )  # fmt: skip
    with forked_decoding():
        lines = list(run_estimate(options))
    found = re.findall(r"([\d,]+) tokens read and ([\d,]+) written", lines[-1])[0]
    return *(int(number.replace(",", "")) for number in found), lines


def test_every_kind_of_request_is_estimated():
    assert set(KINDS) == set(PROMPTS)


@pytest.mark.slow
def test_what_some_videos_took_tells_what_all_take(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "data"
    scripts = write_world(videos, (60, 100, 70, 90, 80))
    with ModelServer(scripts) as server:
        synthesise(videos, out, server.address, settings=SETTINGS, limit=3)
        calls = server.counts.calls.total()
        read, written, lines = estimated(videos, out, server.address)
        assert server.counts.calls.total() == calls  # no model is asked
        synthesise(videos, out, server.address, settings=SETTINGS)
    assert abs(read / server.counts.prompt_tokens - 1) < 0.1
    assert abs(written / server.counts.completion_tokens - 1) < 0.1
    assert "by what 3 videos of this folder took:" in lines
    assert "cost" in lines[-1]


def test_without_anything_done_it_is_called_a_guess(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "data"
    scripts = write_world(videos, (60,))
    out.with_name("data.yaml").write_text("seed: 1\n")
    with ModelServer(scripts) as server:
        read, written, lines = estimated(videos, out, server.address)
        assert not server.counts.calls
    assert read > written > 0
    assert any("rough guess" in line for line in lines)
