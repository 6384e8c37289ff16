"""The arithmetic of sampling and the plan of packets to decode, against slow definitions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourllava.video.timeline import REORDER_PACKETS, Action, Clock, ClockMap, SampleGrid, plan_packets

rates = st.fractions(Fraction(1, 100), 240, max_denominator=1001)
time_bases = st.sampled_from([Fraction(1, n) for n in (1, 25, 1000, 12800, 90000)])


@given(rates, time_bases, st.integers(-(10**9), 10**9), st.integers(0, 10**6))
def test_sample_falls_on_the_nearest_tick(rate, time_base, origin, sample):
    pts = Clock(time_base, origin).pts(SampleGrid(rate, 0, None), sample)
    assert abs((pts - origin) * time_base - sample / rate) <= time_base / 2


@given(rates, time_bases, st.integers(-1000, 1000), st.integers(0, 10**7))
def test_first_sample_is_the_first(rate, time_base, origin, ticks):
    clock, grid = Clock(time_base, origin), SampleGrid(rate, 0, None)
    sample = clock.first_sample(grid, origin + ticks)
    assert clock.pts(grid, sample) >= origin + ticks
    assert sample == 0 or clock.pts(grid, sample - 1) < origin + ticks


@given(st.decimals(0, 1000, places=2), st.decimals("0.01", 100, places=2))
def test_grid_starts_at_the_first_multiple(start, rate):
    grid = SampleGrid.of(float(rate), float(start))
    exact = Fraction(start) * Fraction(rate)
    assert grid.first - 1 < exact <= grid.first


def test_grid_takes_floats_as_written():
    assert SampleGrid.of(10, 0.1).first == 1
    assert SampleGrid.of(30000 / 1001).fps == Fraction(30000, 1001)
    assert SampleGrid.of(0.1, 0, 30).stop == 3


@st.composite
def streams(draw):
    """Packets in decoding order: I and P pictures, each followed by B pictures; the first B may be leading."""
    pts: list[int] = []
    is_key: list[bool] = []
    now = 0
    for _ in range(draw(st.integers(1, 4))):
        leading = draw(st.integers(0, 3)) if pts else 0
        for i in range(draw(st.integers(1, 30))):
            num_b = leading if i == 0 else draw(st.integers(0, 3))
            group = [now + 10 * (num_b), *(now + 10 * j for j in range(num_b))]
            pts += group
            is_key += [i == 0] + [False] * num_b
            now += 10 * (num_b + 1)
    return pts, is_key


@given(streams(), st.lists(st.integers(0, 1500), max_size=12), st.data())
def test_plan_decodes_all_pictures_that_are_shown_or_referred_to(stream, samples, data):
    pts, is_key = stream
    sample_pts = sorted(samples)
    shown = {max(p for p in pts if p <= sample) for sample in sample_pts}
    done: list[Action] = []
    while len(done) < len(pts):  # in blocks, as in decoding
        sight = slice(len(done), len(done) + data.draw(st.integers(2 * REORDER_PACKETS, 100)))
        at_end = sight.stop >= len(pts)
        count = len(pts[sight]) if at_end else len(pts[sight]) - REORDER_PACKETS
        done += plan_packets(pts[sight], is_key[sight], sample_pts, count, at_end)
    dropping = False
    began_pts = -1  # the keyframe where decoding began
    for i, action in enumerate(done):
        if is_key[i] and action is not Action.DROP:
            began_pts = pts[i] if dropping else began_pts
            dropping = False
        dropping = dropping or action is Action.DROP
        if pts[i] in shown:
            assert action is Action.SHOW
            assert not dropping
            assert pts[i] >= began_pts


def test_plan_drops_the_tail_of_a_group():
    pts = list(range(100))
    is_key = [i % 25 == 0 for i in range(100)]
    actions = plan_packets(pts, is_key, [0, 30], 100, True)
    assert actions[0] is actions[30] is Action.SHOW
    assert set(actions[1:25]) == {Action.DROP}
    assert set(actions[25:30]) == {Action.REFERENCE}
    assert set(actions[31:75]) == {Action.DROP}


def test_without_timestamps_every_packet_is_decoded():
    assert plan_packets([0, None, 2], [True, False, False], [0], 3, True) == [Action.SHOW] * 3


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001])
def test_impossible_rates(fps):
    with pytest.raises(ValueError, match="fps"):
        SampleGrid.of(fps)


@given(st.lists(st.tuples(streams(), st.integers(-(10**6), 10**6)), min_size=1, max_size=4), st.booleans())
def test_clock_map_joins_recordings(parts, has_dts):
    """The first picture of each part is shown when the last of the part before ends; a single part is unchanged."""
    clock_map = ClockMap(Fraction(1, 250), 10, 10)
    begins, expected = None, []
    mapped = []
    for (pts, is_key), start in parts:
        dts = [sorted(pts)[0] - 40 + 10 * i for i in range(len(pts))]
        jumped = begins is not None
        begins = start if begins is None else begins
        for i, value in enumerate(pts):
            clock_map.add(start + value, start + dts[i] if has_dts else None, 10, is_key[i])
            mapped.append(start + value + clock_map.offset_ticks)
        expected += [begins + value - (pts[0] if jumped else 0) for value in pts]
        begins = max(expected) + 10
    if len(parts) == 1:
        assert clock_map.jumps == []
        assert mapped == expected
    assert clock_map.end_pts is not None
    assert all(
        jump.ticks > 10 * 250 or jump.ticks < 0 for jump in clock_map.jumps
    )  # a clock that goes less far ahead makes a pause
    if len(clock_map.jumps) == len(parts) - 1:
        assert mapped == expected


@given(streams(), st.integers(2000, 10**6), st.integers(-(10**6), -2000))
def test_clock_map_follows_a_clock_far_ahead_and_far_back(stream, ahead, back):
    pts, is_key = stream
    for change in (ahead + 2500, back):
        clock_map = ClockMap(Fraction(1, 250), 10, 10)
        for shift in (0, change + max(pts)) if change > 0 else (0, change - max(pts)):
            for value, key in zip(pts, is_key):
                clock_map.add(value + shift, None, 10, key)
        assert len(clock_map.jumps) == 1
        assert clock_map.end_pts == 2 * (max(pts) + 10) - pts[0]


@given(rates, st.integers(0, 50), st.none() | st.integers(0, 90), st.fractions(0, 3, max_denominator=1000))
def test_samples_within_a_video(rate, first, stop, duration):
    found = SampleGrid(rate, first, stop).samples_within(duration)
    assert set(found) == {k for k in range(first, 722) if k / rate < duration and (stop is None or k < stop)}
