"""docs/synthesis.md: its commands run, against a test server in place of models, and its tables are complete."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from conftest import GOLDEN
from forked_decoding import forked_decoding
from hourllava import plotting
from hourllava.cli.main import app
from hourllava.synthesis.checks.run import CHECKS
from hourllava.synthesis.clips import Clip, PlannedVideo, plan_clips
from hourllava.synthesis.estimate import KINDS, Amount, estimate
from hourllava.synthesis.folder import STAGES
from hourllava.synthesis.models.openai_server import ServerOptions
from hourllava.synthesis.prompting import PROMPTS, load_prompts
from hourllava.synthesis.settings import SynthSettings
from hourllava.synthesis.videos import Terms, Video
from synthesis.model_server import ModelServer
from synthesis.runs import write_world

PAGE = Path(__file__).parents[2] / "docs" / "synthesis.md"
RELEASED = "jylins/hourllava-qwen25-3b-s3"


def doc():
    return PAGE.read_text(encoding="utf-8")


def commands(language):
    blocks = re.findall(rf"^```{language}\n(.*?)^```", doc(), flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def hour():
    """An hour of video, clipped as by default."""
    video = Video(Path("v.mp4"), "v.mp4", "videos", Terms(video="v.mp4"))
    clips = tuple(Clip(k, start, end) for k, (start, end) in enumerate(plan_clips(3600, 30, 20)))
    return PlannedVideo(video, "", 3600, 1920, 1080, 0.0, clips, ())


def cost_lines():
    """The table of what an hour of video costs, rounded to two digits."""
    found = estimate([hour()], Path("nowhere"), SynthSettings(), load_prompts(), list(KINDS))
    rows = {**{f"`{kind}`": amount for kind, amount in found.amounts.items()}, "all": found.total}
    return [f"| {name} | {' | '.join(_short(value) for value in _values(amount))} |" for name, amount in rows.items()]


def _values(amount: Amount):
    return amount.calls, amount.prompt_tokens, amount.completion_tokens


def _short(value):
    return f"{float(f'{value:.2g}') / 1000:g}K" if value >= 1000 else f"{value:.0f}"


def fields(section, prefix=""):
    """(setting, its default) of all settings."""
    for name, field in section.model_fields.items():
        kind = ServerOptions if prefix + name == "server" else field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        elif not isinstance(field.default, dict) or name == "extra_body":
            yield prefix + name, field.default
        else:
            for key, value in field.default.items():
                yield f"{prefix}{name}.{key}", value
            if not field.default:
                yield f"{prefix}{name}", field.default


def settings_lines():
    """The table of settings."""
    lines = ["| setting | default |", "|---|---|"]
    for name, default in fields(SynthSettings):
        shown = "all 22" if name == "questions.tasks" else "open, choice" if name == "questions.formats" else default
        lines.append(f"| `{name}` | {str(shown).lower() if isinstance(shown, bool) else shown} |")
    return lines


def test_the_tables_are_those_of_the_code():
    for line in (*settings_lines(), *cost_lines()):
        assert line in doc(), line


def test_every_stage_check_and_prompt_has_its_line():
    text = doc()
    for name in (*STAGES, *CHECKS):
        assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE), name
    for name in PROMPTS:
        assert f"`{name}.txt`" in text


@pytest.mark.slow
def test_the_commands_for_marathonworld_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plotting, "_DPI", 20)
    with forked_decoding():
        for command in commands("bash"):
            here = ["--processes", "1"] if "world make" in command else []
            result = CliRunner().invoke(app, [*shlex.split(command)[1:], *here])
            assert result.exit_code == 0, (command, result.output, result.exception)
    assert (tmp_path / "out/synth/card.md").is_file()
    assert (tmp_path / "out/synth-stats/statistics.png").is_file()


@pytest.mark.slow
def test_the_commands_for_your_own_videos_run(tmp_path, monkeypatch):
    """A test server stands for all models, two short videos for yours, a small checkpoint for the released one."""
    monkeypatch.chdir(tmp_path)
    scripts = write_world(tmp_path / "videos", (60, 64))
    for source in (GOLDEN / "tiny_pixels", GOLDEN / "chat" / "tokenizer"):
        shutil.copytree(source, tmp_path / "checkpoint", dirs_exist_ok=True)
    (mixture,) = re.findall(r"^```json\n(.*?)^```", doc(), flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "mixture.json").write_text(mixture)
    ours = [command for command in commands("sh") if command.startswith("hourllava ")]
    assert {shlex.split(command)[1] for command in ours} == {"synth", "data", "train"}
    with ModelServer(scripts) as server, forked_decoding():
        for command in ours:
            here = re.sub(r"http://(localhost|node\d):800\d/v1", server.address, command).replace(
                RELEASED, "checkpoint"
            )
            short = ["--set", "schedule.max_steps=1", "--set", "batch.samples=2"] if " train " in command else []
            result = CliRunner().invoke(app, [*shlex.split(here)[1:], *short])
            assert result.exit_code == 0, (here, result.output, result.exception)
    assert (tmp_path / "data/mine/card.md").is_file()
    assert (tmp_path / "runs/mine/final").is_dir()
