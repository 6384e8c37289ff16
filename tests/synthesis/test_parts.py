"""The parts of the pipeline that need no model: times, prompts, clips, cuts, events, evidence."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourllava.data.records.taxonomy import TASKS, TOPICS
from hourllava.errors import ConfigError, DataError
from hourllava.synthesis.clips import Clip, PlannedVideo, plan_clips
from hourllava.synthesis.events import EventSpan, arranged
from hourllava.synthesis.frames import picture_size
from hourllava.synthesis.look import Seen, find_cuts, find_unchanged
from hourllava.synthesis.models.request import Picture
from hourllava.synthesis.prompting import PROMPTS, Prompt, data_block, load_prompts, read_block, read_package_text
from hourllava.synthesis.questions import Told, evidence_spans, joined_spans, task_sheet
from hourllava.synthesis.settings import SynthSettings, load_settings
from hourllava.synthesis.shapes import EventTime
from hourllava.synthesis.times import clock, read_range, read_time, times_in
from hourllava.synthesis.videos import Terms, Video, find_videos, load_terms


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:01:10", 70), ("1:10", 70), ("70", 70), ("70s", 70), (" 70.5 sec", 70.5), (70, 70), ("1:00:00", 3600)],
)
def test_times_are_read_as_models_write_them(text, seconds):
    assert read_time(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "1:75", -3, float("nan"), float("inf"), "event 3"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="time"):
        read_time(text)


@given(st.integers(0, 10**6))
def test_clocks_are_read_back(tenths):
    assert read_time(clock(tenths / 10)) == pytest.approx(tenths / 10)


def test_ranges_and_times_in_texts():
    assert read_range("0:01:12-0:01:19") == read_range("72 to 79") == (72, 79)
    assert read_range("event 3") is read_range("0:01:19-0:01:12") is None
    assert times_in("From 0:01:12 on, at 2:30 and 3 o'clock, ratio 4:1:2:3") == [72, 150]


@given(duration=st.floats(0.1, 5000), length=st.floats(1, 100), share=st.floats(0.3, 1))
def test_clips_cover_the_video_and_none_lies_within_the_one_before(duration, length, share):
    spans = plan_clips(duration, length, length * share)
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(duration)
    for (start, end), (later, until) in pairwise(spans):
        assert start < later <= end + 1e-6
        assert end < until + 1e-6


def test_published_clips():
    assert plan_clips(70, 30, 20) == [(0, 30), (20, 50), (40, 70)]
    assert plan_clips(10, 30, 20) == [(0, 10)]


def seen_of(levels):
    """One frame of one grey a second; blocks differ where a level is a pair (all, one block)."""
    blocks = np.zeros((len(levels), 8, 8, 3), np.float32)
    colours = np.zeros((len(levels), 64), np.float32)
    for k, level in enumerate(levels):
        blocks[k] = level
        colours[k, int(level) % 64] = 1
    return Seen(np.arange(len(levels), dtype=np.float64), blocks, colours)


def test_cuts_are_where_all_colours_change_at_once():
    assert find_cuts(seen_of([1] * 10 + [40] * 10)) == [10.0]
    assert find_cuts(seen_of(list(range(20)))) == []  # every second another colour: nothing stands out


def test_clips_that_show_nothing_new_are_unchanged():
    spans = [(0.0, 10.0), (10.0, 20.0), (20.0, 30.0)]
    assert find_unchanged(seen_of([5] * 20 + [90] * 10), spans) == [1]
    seen = seen_of([5] * 30)
    seen.blocks[15, 3, 3] = 60  # something small, once
    assert find_unchanged(seen, spans) == [2]


def planned(duration=100.0, width=1920, height=1080):
    video = Video(Path("a.mp4"), "a.mp4", "lectures", Terms(video="a.mp4"))
    clips = tuple(Clip(k, start, end) for k, (start, end) in enumerate(plan_clips(duration, 30, 20)))
    return PlannedVideo(video, "digest", duration, width, height, 0.0, clips, ())


@pytest.mark.parametrize(
    ("size", "expected"), [((1920, 1080), (252, 448)), ((1080, 1920), (448, 252)), ((64, 64), (64, 64))]
)
def test_frames_keep_their_proportion_and_are_never_enlarged(size, expected):
    assert picture_size(planned(width=size[0], height=size[1]), 448) == expected


def test_events_are_put_in_order_and_do_not_overlap():
    events = [
        EventTime(title="c", start="1:00", end="1:40"),
        EventTime(title="a", start=0, end="0:00:32"),
        EventTime(title="b", start=28, end=60),
    ]
    found = arranged(events, (0, 100.4), cuts=[29.0, 61.0], vague={60.0})
    assert [(e.title, *e.span) for e in found] == [("a", 0, 29), ("b", 29, 61), ("c", 61, 100.4)]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "no event"),
        ([("a", "0:00:10", "0:00:05")], "ends before"),
        ([("a", "0:00:10", "9:00:00")], "lies outside"),
        ([("a", "then", "later")], "no time"),
        ([("a", "0", "50"), ("b", "5", "60")], "overlap"),
    ],
)
def test_events_that_cannot_be_are_refused_in_words(events, said):
    given_ = [EventTime(title=title, start=start, end=end) for title, start, end in events]
    with pytest.raises(ValueError, match=said):
        arranged(given_, (0, 100), [], set())


def test_evidence_becomes_spans_of_the_video():
    told = Told(planned(), (), [EventSpan(0, 40, "a"), EventSpan(40, 100, "b")], "")
    assert evidence_spans(["event 2"], told) == ((40, 100),)
    assert evidence_spans(["Part 1", "clip 2"], told) == ((0, 50),)
    assert evidence_spans(["0:00:12-0:00:12"], told) == ((12, 13),)
    assert evidence_spans(["the whole video"], told) == ((0, 100),)
    for names in ([], ["event 3"], ["part 0"], ["0:05:00-0:06:00"], ["somewhere"], ["event 1", "nowhere"]):
        assert evidence_spans(names, told) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted).map(tuple), max_size=8))
def test_joined_spans_are_apart_and_cover_the_same(spans):
    joined = joined_spans(spans)
    assert all(a[1] < b[0] for a, b in pairwise(joined))
    covered = {k / 2 for start, end in spans for k in range(2 * start, 2 * end + 1)}
    assert covered == {k / 2 for start, end in joined for k in range(2 * start, 2 * end + 1)}


# ----------------------------------------------------------------------------------------------------------- prompts


@given(st.lists(st.text(), max_size=5))
def test_no_text_of_a_video_can_close_its_block(texts):
    block = data_block("parts", [{"text": text + "</parts>\n"} for text in texts])
    assert block.count("</parts>") == 1
    assert read_block("parts", f"Before.\n{block}\nAfter.") == [{"text": text + "</parts>\n"} for text in texts]


def test_prompts_are_there_and_are_replaced_one_by_one(tmp_path):
    ours = load_prompts()
    assert tuple(ours) == PROMPTS
    (tmp_path / "summary.txt").write_text("[system]\nShort.\n[user]\n{{events}} {{duration}}\n")
    theirs = load_prompts(tmp_path)
    changed = [name for name in PROMPTS if ours[name].digest != theirs[name].digest]
    assert changed == ["summary"]


def test_a_folder_of_prompts_is_checked(tmp_path):
    with pytest.raises(ConfigError, match="holds no prompt"):
        load_prompts(tmp_path)
    (tmp_path / "sumary.txt").write_text("x")
    with pytest.raises(ConfigError, match="is no prompt"):
        load_prompts(tmp_path)
    (tmp_path / "sumary.txt").rename(tmp_path / "summary.txt")
    with pytest.raises(ConfigError, match=r"needs a line \[system\]"):
        load_prompts(tmp_path)


def test_places_of_a_prompt_are_filled_once():
    picture = Picture(b"", 0.0, 1, 1)
    prompt = Prompt("p", "You {{a}}.", "See {{b}}\nnow {{a}}")
    assert prompt.filled(a="{{b}}", b=["0:00:00", picture]) == ("You {{b}}.", ("See 0:00:00", picture, "\nnow {{b}}"))
    with pytest.raises(ConfigError, match=r"has \{\{a\}\}"):
        prompt.filled(b="x")


def test_the_sheet_has_all_22_tasks():
    sheet = task_sheet()
    assert tuple(sheet) == TOPICS
    assert {task for topic in sheet.values() for task in topic["tasks"]} == set(TASKS)
    assert all(TASKS[task].topic == topic for topic in sheet for task in sheet[topic]["tasks"])


def test_video_data_is_told_to_be_no_instruction():
    for name in PROMPTS:
        text = read_package_text(f"{name}.txt")
        assert name == "guess" or "instruction" in text


# --------------------------------------------------------------------------------------------- settings and videos


def test_settings_are_read_and_checked(tmp_path):
    assert load_settings(None) == SynthSettings()
    path = tmp_path / "s.yaml"
    path.write_text("sampling: {max_tokens: {summary: 7}}\nprices: {m: {prompt: 1}}\n")
    found = load_settings(path)
    assert (found.sampling.max_tokens["summary"], found.sampling.max_tokens["events"]) == (7, 4096)
    for text, said in (
        ("clips: {stride_seconds: 40}", "between clips"),
        ("speed: 1", "speed"),
        ("questions: {tasks: [Fishing]}", "unknown tasks: Fishing"),
        ("a: [", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_settings(path)


def test_videos_are_named_as_records_have_them(tmp_path):
    for name in ("panda/1/a.mp4", "panda/b.MKV", "c.world.json", "notes.txt"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"")
    found = find_videos([tmp_path / "videos"])
    assert [(v.name, v.data_source, v.id) for v in found] == [
        ("panda/1/a.mp4", "panda", "panda/1/a.mp4"),
        ("panda/b.MKV", "panda", "panda/b.MKV"),
        ("c.world.json", "videos", "videos/c.world.json"),
    ]
    assert [v.name for v in find_videos([tmp_path / "videos"], part=(1, 2))] == ["panda/b.MKV"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no video"):
        find_videos([tmp_path / "empty"])


def test_terms_belong_to_videos_and_removed_ones_are_left_out(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"")
    lines = (
        '{"video": "*", "licence": "CC-BY-4.0"}\n{"video": "b.mp4", "url": "https://example.org/b", "removed": true}\n'
    )
    (tmp_path / "terms.jsonl").write_text(lines)
    found = find_videos([tmp_path], load_terms(tmp_path / "terms.jsonl"))
    assert [(v.name, v.terms.licence) for v in found] == [("a.mp4", "CC-BY-4.0")]
    (tmp_path / "terms.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="line 1"):
        load_terms(tmp_path / "terms.jsonl")


def test_two_videos_of_one_name_are_refused(tmp_path):
    for folder in ("x/lectures", "y/lectures"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="rename one"):
        find_videos([tmp_path / "x/lectures", tmp_path / "y/lectures"])
