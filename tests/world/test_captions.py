"""Captions cover the video and name what is in it; times are written in one way."""

import pytest

from hourllava.world.captions import generate_captions
from hourllava.world.generate import generate_script
from hourllava.world.wording import bucket, spoken_duration


@pytest.mark.parametrize("duration", [1, 7, 45, 605])
def test_captions_cover_the_video_without_gaps(duration):
    script = generate_script(3, duration)
    captions = generate_captions(script)
    assert captions.clips[0].start_seconds == 0
    assert captions.clips[-1].end_seconds == duration
    for before, after in zip(captions.clips, captions.clips[1:]):
        assert before.end_seconds == after.start_seconds
    assert all(clip.end_seconds - clip.start_seconds <= 30 for clip in captions.clips)
    assert [(e.start_seconds, e.end_seconds) for e in captions.events] == [
        (e.start_seconds, e.end_seconds) for e in script.events
    ]


def test_captions_name_what_is_there_in_varied_words():
    script = generate_script(6, 600)
    captions = generate_captions(script)
    for clip in captions.clips:
        for name in ("temporality", "spatiality", "object", "action", "scene", "summary"):
            text = getattr(clip, name)
            assert text.endswith(".")
            assert text[0].isupper()
            assert "None" not in text
            assert " a orange" not in text
    for event, caption in zip(script.events, captions.events):
        assert event.scene in caption.caption
        assert all(action.actor in caption.caption for action in event.actions)
        assert all(name in caption.caption for name in event.places)
    for needle in script.needles:
        assert f"{needle.glyph} in {needle.colour}" in captions.overall
    assert len({caption.caption.split(" the ")[0] for caption in captions.events}) == 3
    assert generate_captions(script) == captions


def test_times_are_spelled_in_one_way():
    assert bucket(75, 180) == "between 0:01:10 and 0:01:20"
    assert bucket(4000, 5000) == "between 1:06:00 and 1:07:00"
    assert [spoken_duration(s) for s in (1, 19, 21, 118, 125, 3600, 7300, 80000)] == [
        "1 second", "19 seconds", "20 seconds", "120 seconds", "2 minutes", "60 minutes", "2 hours", "22 hours",
    ]  # fmt: skip
