"""Frames show what the screen log says, at any size; video files show the same frames."""

from pathlib import Path

import av
import numpy as np
import pytest

from hourllava.errors import ConfigError, VideoError
from hourllava.world.drawing.backdrops import backdrop
from hourllava.world.drawing.encode import encode_video
from hourllava.world.drawing.motion import DIAMETERS, moving, place_centre
from hourllava.world.drawing.render import TRANSITION_SECONDS, Renderer, render_frames
from hourllava.world.generate import DIFFICULTIES, generate_script
from hourllava.world.script import Action, screen_log
from hourllava.world.vocabulary import COLOURS, OCCASIONS, PLACES, SCENES, VERBS

TOLERANCE = 12


def has_colour(pixels, colour, share):
    near = (np.abs(pixels.astype(int) - COLOURS[colour]) <= TOLERANCE).all(-1)
    return near.mean() >= share


@pytest.mark.parametrize("size", [64, 256])
def test_resting_objects_and_cards_are_where_the_log_says(size):
    script = generate_script(11, 240)
    log, checked = screen_log(script), 0
    busy = [line for line in log if line.kind in ("action", "card")]
    seconds = range(0, 240, 1 if size == 64 else 3)
    for second, frame in zip(seconds, render_frames(script, seconds, size)):
        for line in log:
            if not line.start_seconds <= second < line.end_seconds:
                continue
            if line.kind == "card":
                assert has_colour(frame, line.colour, 0.2)
                checked += 1
            if line.kind == "object" and not any(b.start_seconds <= second < b.end_seconds for b in busy):
                x, y = place_centre(line.place)
                half = DIAMETERS["small"] / 4
                rows = slice(int((y - half) * size), int((y + half) * size))
                columns = slice(int((x - half) * size), int((x + half) * size))
                assert has_colour(frame[rows, columns], line.colour, 0.15), (second, line)
                checked += 1
    assert checked > 100


def test_frames_have_the_asked_shape_and_are_reproducible():
    script = generate_script(2, 30)
    frames = render_frames(script, [0, 1.5, 29.75], 48)
    assert frames.shape == (3, 48, 48, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, render_frames(script, [0, 1.5, 29.75], 48))
    one = render_frames(script, [1.5], 48)  # earlier frames have no influence
    np.testing.assert_array_equal(one[0], frames[1])


def test_sizes_show_the_same_picture():
    script = generate_script(2, 60)
    large = render_frames(script, range(0, 60, 5), 256).astype(float)
    small = render_frames(script, range(0, 60, 5), 64).astype(float)
    shrunk = large.reshape(len(large), 64, 4, 64, 4, 3).mean((2, 4))
    assert np.abs(shrunk - small).mean() < 8


def test_scenes_and_occasions_look_clearly_different():
    for kind in (
        [backdrop(scene, "party", 64) for scene in SCENES],
        [backdrop("meadow", occasion, 64) for occasion in OCCASIONS],
    ):
        for i, a in enumerate(kind):
            for b in kind[:i]:
                assert np.abs(a.astype(int) - b.astype(int)).mean() > 8


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_action_shows_at_one_frame_a_second(verb):
    partner = "blue ball" if VERBS[verb].with_partner else None
    action = Action(
        verb=verb, actor="red star", partner=partner, start_seconds=10, end_seconds=17,
        direction="right" if VERBS[verb].directed else None, end_place="bottom right" if VERBS[verb].directed else None,
    )  # fmt: skip
    places = {"red star": "bottom left", "blue ball": "centre"}
    poses = [tuple(moving(action, places, second)) for second in range(10, 17)]
    assert len(set(poses)) >= 2
    first = {pose.name: pose for pose in poses[0]}["red star"]
    assert (first.x, first.y) == pytest.approx(place_centre("bottom left"), abs=0.01)
    last = {pose.name: pose for pose in moving(action, places, 16.999)}["red star"]
    end = {"slide": "bottom right", "leave": "bottom right", "swap": "centre"}.get(verb, "bottom left")
    if verb not in ("jump", "sway", "spin"):  # these end at any phase; the next frame shows the object at rest
        assert (last.x, last.y) == pytest.approx(place_centre(end), abs=0.02)


def test_what_is_covered_is_hidden_and_what_leaves_is_gone():
    places = {"red star": "top left", "blue ball": "centre"}
    cover = Action(verb="cover", actor="red star", partner="blue ball", start_seconds=0, end_seconds=8)
    assert {pose.name for pose in moving(cover, places, 4)} == {"red star"}
    leave = Action(
        verb="leave", actor="red star", direction="up", end_place="top right", start_seconds=0, end_seconds=8
    )
    assert all(pose.y < -0.2 for pose in moving(leave, places, 4))


def test_whole_seconds_are_never_in_a_transition():
    assert TRANSITION_SECONDS < 1
    script = next(s for s in (generate_script(k, 60) for k in range(50)) if s.events[1].transition == "fade")
    start = script.events[1].start_seconds
    renderer = Renderer(script, 64)
    before, between, after = (renderer.frame(start - d).astype(float) for d in (1, TRANSITION_SECONDS / 2, 0))
    assert np.abs(between - (before + after) / 2).mean() < 3
    assert np.abs(before - after).mean() > 10


def test_nine_places_are_a_grid():
    centres = [place_centre(place) for place in PLACES]
    assert len(set(centres)) == 9
    assert place_centre("centre") == (0.5, 0.5)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_the_file_shows_the_script_at_whole_seconds(tmp_path: Path, suffix):
    script = generate_script(3, 20, density=DIFFICULTIES["hard"])
    path = tmp_path / f"video{suffix}"
    encode_video(script, path, size_pixels=128, fps=4)
    with av.open(str(path)) as container:
        decoded = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert [time for time, _ in decoded] == pytest.approx([k / 4 for k in range(80)], abs=1e-3)
    rendered = render_frames(script, range(20), 128)
    for second in range(20):
        assert np.abs(decoded[4 * second][1].astype(int) - rendered[second]).mean() < 8
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_same_script_gives_the_same_file(tmp_path: Path):
    script = generate_script(3, 15)
    for name in ("a.mp4", "b.mp4"):
        encode_video(script, tmp_path / name, size_pixels=64)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_bad_sizes_times_and_names_are_refused(tmp_path: Path):
    script = generate_script(3, 15)
    with pytest.raises(ConfigError, match="16 to 2048"):
        render_frames(script, [0], 4)
    with pytest.raises(ConfigError, match="lasts 15 s"):
        render_frames(script, [15], 64)
    with pytest.raises(ConfigError, match=r"\.mp4 or \.webm"):
        encode_video(script, tmp_path / "video.avi")
    with pytest.raises(VideoError, match="cannot be written"):
        encode_video(script, tmp_path / "absent" / "video.mp4")
    with pytest.raises(ConfigError, match="even size"):
        encode_video(script, tmp_path / "video.mp4", size_pixels=65)
