"""Scripts: the same bytes on every machine, valid at every length, and varied."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.errors import ConfigError
from hourllava.world.generate import DIFFICULTIES, MAX_SECONDS, Density, generate_script, max_needles
from hourllava.world.script import Script, check_script, screen_log
from hourllava.world.vocabulary import COLOURS, OCCASIONS, PLACES, SCENES, SHAPES, SIZES, VERBS


def test_the_bytes_are_those_of_the_first_machine():
    text = generate_script(1, 600).model_dump_json()
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "8ee7fe4a6e16fea7"


@examples(40)
@given(
    seed=st.integers(0, 2**63),
    duration=st.one_of(st.integers(1, 200), st.integers(200, MAX_SECONDS)),
    split=st.sampled_from(("train", "test")),
    difficulty=st.sampled_from(sorted(DIFFICULTIES)),
)
def test_every_length_gives_a_valid_script(seed, duration, split, difficulty):
    script = generate_script(seed, duration, split=split, density=DIFFICULTIES[difficulty])
    check_script(script)
    assert 3 <= len(script.events) <= 72
    assert len({event.title for event in script.events}) == len(script.events)
    for needle in script.needles:
        assert 1 <= needle.end_seconds - needle.start_seconds <= 3
        assert needle.start_seconds == int(needle.start_seconds)
    assert script == Script.model_validate_json(script.model_dump_json())


@pytest.mark.parametrize("duration", [12, 20, 60, 300])
def test_the_most_needles_fit_and_leave_every_event_visible(duration):
    limit = max_needles(duration, DIFFICULTIES["normal"])
    script = generate_script(3, duration, needles=limit)
    assert len(script.needles) == limit
    for event in script.events:
        assert not any(n.start_seconds <= event.start_seconds < n.end_seconds for n in script.needles)


def test_the_world_is_as_large_as_promised():
    assert len(SCENES) >= 8
    assert len(SHAPES) >= 8
    assert len(COLOURS) >= 8
    assert len(SIZES) == 2
    assert len(PLACES) == 9
    assert len(VERBS) >= 8
    scripts = [generate_script(seed, 1800) for seed in range(8)]
    events = [event for script in scripts for event in script.events]
    assert {event.scene for event in events} == set(SCENES)
    assert {event.occasion for event in events} == set(OCCASIONS)
    assert {event.transition for event in events} == {"cut", "fade", "wipe"}
    verbs = Counter(action.verb for event in events for action in event.actions)
    assert set(verbs) == set(VERBS)
    assert max(verbs.values()) < 1.3 * min(verbs.values())


def test_density_changes_how_much_goes_on():
    few = generate_script(1, 1200, density=Density(objects_per_event=2, mean_event_seconds=120, actions_per_minute=1))
    many = generate_script(1, 1200, density=Density(objects_per_event=5, mean_event_seconds=30, actions_per_minute=6))
    assert len(many.events) == 40
    assert len(few.events) == 10
    assert sum(len(e.actions) for e in many.events) > 3 * sum(len(e.actions) for e in few.events)
    still = generate_script(1, 1200, density=Density(actions_per_minute=0))
    assert not any(event.actions for event in still.events)


def test_pinned_needles_start_where_they_are_told_to():
    script = generate_script(4, 3600, needles=5, needle_starts_seconds=(1234,))
    assert any(abs(needle.start_seconds - 1234) <= 1 for needle in script.needles)


def test_objects_rest_in_one_place_each_and_never_two_in_one():
    script = generate_script(8, 900, density=DIFFICULTIES["hard"])
    log = screen_log(script)
    for second in range(0, 900, 7):
        resting = [o for o in log if o.kind == "object" and o.start_seconds <= second < o.end_seconds]
        assert len({o.name for o in resting}) == len(resting)
        assert len({o.place for o in resting}) == len(resting)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"duration_seconds": 0}, "1 to 86400"),
        ({"duration_seconds": -5}, "1 to 86400"),
        ({"duration_seconds": MAX_SECONDS + 1}, "24 hours"),
        ({"duration_seconds": 10, "needles": 11}, "takes 0 to 7"),
        ({"duration_seconds": 60, "needles": -1}, "takes 0 to"),
        ({"duration_seconds": 60, "split": "dev"}, "train, test"),
    ],
)
def test_bad_settings_say_what_is_allowed(kwargs, words):
    with pytest.raises(ConfigError, match=words):
        generate_script(1, **kwargs)


@pytest.mark.parametrize("field", ["objects_per_event", "mean_event_seconds", "actions_per_minute"])
def test_bad_density_says_what_is_allowed(field):
    with pytest.raises(ConfigError, match=field):
        Density(**{field: 10_000})
