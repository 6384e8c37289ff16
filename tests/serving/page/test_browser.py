"""The page in a real browser, over a running server with a scripted engine: one test for each scenario.

`make test-browser` sets up what these need: Debian's chromium, node, and two packages from npm. A scenario is a file in
`scenarios/`; `run.mjs` runs one, and fails too if a request leaves loopback or the page reports an error.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hourllava.inference.questions.evidence import Span
from hourllava.serving.protocol import WatchFailure
from hourllava.world import encode_video, generate_script
from serving.live import Live, live
from serving.scripted_engine import Script
from video.clips import write_clip

HERE = Path(__file__).parent
NUM_SECONDS = 500  # the scripted engine's evidence lies before the end of such a video
KEY = "a-key-for-the-browser"
pytestmark = pytest.mark.browser

SCRIPTS = {
    # Cards of four moments are wider than a phone.
    "access": Script(evidence=[Span(start, start + 5.0, 0.2) for start in (5.0, 60.0, 200.0, 490.0)]),
    "ask": Script(piece_seconds=0.2, frame_seconds=0.005),
    "cancel": Script(pieces=("A red", " car", ".") + (" It waits.",) * 200, piece_seconds=0.3, frame_seconds=0.01),
    "failed": Script(frame_seconds=0.002, watch_failure=WatchFailure("video_unreadable", "its second half is missing")),
}
SETTINGS: dict[str, dict[str, Any]] = {"key": {"keys": {"browser": KEY}}}


def chromium() -> str:
    """The browser; of Debian's, the binary itself, as its wrapper prints warnings."""
    places = (os.environ.get("CHROMIUM"), "/usr/lib/chromium/chromium", "chromium", "google-chrome")
    found = next((path for place in places if place and (path := shutil.which(place))), None)
    assert found, "there is no Chromium; make test-browser installs it, or set CHROMIUM"
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What scenarios give the page."""
    folder = tmp_path_factory.mktemp("files")
    shelf = tmp_path_factory.mktemp("media") / "shelf"
    shelf.mkdir()
    made = {
        "video": write_clip(folder / "lecture.mp4", num_frames=NUM_SECONDS, fps=1),
        "unplayable": write_clip(folder / "old.avi", num_frames=NUM_SECONDS, fps=1, codec="mpeg4"),
        "text": folder / "notes.mp4",
        "subtitles": folder / "speech.srt",
        "media": shelf.parent,
    }
    shutil.copy(made["video"], shelf / "talk.mp4")
    made["text"].write_text("These are notes.\n" * 9, encoding="utf-8")
    cues = "1\n00:00:01,000 --> 00:00:02,500\nGood morning.\n\n2\n00:07:01,000 --> 00:07:02,000\nA car!\n"
    made["subtitles"].write_text(cues, encoding="utf-8")
    return made


@pytest.fixture
def running(request: pytest.FixtureRequest, tmp_path: Path, files: dict[str, Path]) -> Iterator[Live]:
    name = request.node.callspec.params["name"]
    script = SCRIPTS.get(name, Script())
    script.num_frames = NUM_SECONDS
    with live(tmp_path / "store", script=script, media_root=files["media"], **SETTINGS.get(name, {})) as server:
        yield server


def run(name: str, **given: Any) -> None:
    """Run a scenario; what it says is shown if it fails."""
    facts = json.dumps(
        {"chromium": chromium(), **{at: str(each) if isinstance(each, Path) else each for at, each in given.items()}}
    )
    done = subprocess.run(["node", str(HERE / "run.mjs"), name, facts], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted({path.stem for path in (HERE / "scenarios").glob("*.mjs")} - {"nano"}))
def test_scenario(name: str, running: Live, files: dict[str, Path]) -> None:
    run(name, url=f"{running.url}/", key=KEY, **files)
    if name == "subtitles":
        with_and_without = [[cue.text for cue in question.subtitles] for _, question in running.engine.asked]
        assert with_and_without == [["Good morning.", "A car!"], []]


def test_nano(tmp_path: Path) -> None:
    script = generate_script(seed=3, duration_seconds=60)
    card = script.needles[-1]
    encode_video(script, tmp_path / "world.mp4")
    command = [sys.executable, "-m", "hourllava", "serve", "--port", "0", "--store", str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            question = f"When the letter {card.glyph} flashed up, which colour did it have?"
            facts = {"question": question, "answer": card.colour, "start": card.start_seconds, "end": card.end_seconds}
            run("nano", url=f"{address}/", video=tmp_path / "world.mp4", **facts)
        finally:
            server.terminate()


def test_units() -> None:
    done = subprocess.run(["node", "--test", str(HERE / "units.mjs")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
