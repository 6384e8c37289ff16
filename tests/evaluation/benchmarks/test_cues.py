"""Subtitles: both published shapes, cut clips, and which cues a prompt shows."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from evaluation.benchmarks.miniatures import put_srt
from hourllava.errors import DataError
from hourllava.evaluation.benchmarks.cues import (
    Sampling,
    Section,
    TimedText,
    at_frames,
    cues_of_part,
    evenly_spaced,
    harness_text,
    interleaved,
    sections_at_frames,
    srt_sections,
    timed_texts,
)
from hourllava.inference.questions.subtitles import Cue


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([{"start": "00:00:01.000", "end": "01:00:03.200", "line": "x"}], TimedText(1.0, 3603.2, "x")),
        ([{"timestamp": [1.0, 3.2], "text": "x"}], TimedText(1.0, 3.2, "x")),
        ([{"timestamp": [1, None], "text": "x"}], TimedText(1.0, None, "x")),
    ],
)
def test_both_shapes_of_subtitles(tmp_path, cells, expected):
    (tmp_path / "x.json").write_text(json.dumps(cells))
    assert timed_texts(tmp_path / "x.json") == [expected]


def test_a_whole_number_is_no_end_for_the_authors(tmp_path):
    """Their script, and lmms-eval's, take only numbers with a point for ends."""
    cells = [{"timestamp": [1, 3], "text": "x"}, {"timestamp": [4.0, 6.0], "text": "y"}]
    (tmp_path / "x.json").write_text(json.dumps(cells))
    assert timed_texts(tmp_path / "x.json") == [TimedText(1.0, 3.0, "x"), TimedText(4.0, 6.0, "y")]
    assert timed_texts(tmp_path / "x.json", as_authors=True) == [TimedText(1.0, None, "x"), TimedText(4.0, 6.0, "y")]


def test_an_srt_file_gives_the_same_cues(tmp_path):
    put_srt(tmp_path / "x.srt", [(1.0, 3.25, "x")], "<i>{}</i>")
    assert timed_texts(tmp_path / "x.srt") == [TimedText(1.0, 3.25, "x")]


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '[{"start": "now"}]', "[3]", '[{"timestamp": [1], "text": "x"}]'])
def test_damaged_subtitles_are_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="is no subtitle file of LongVideoBench"):
        timed_texts(tmp_path / "x.json")


def test_a_clip_gets_its_own_part_of_the_subtitles():
    cues = [TimedText(1, 3, "before"), TimedText(33, 35, "over the start"), TimedText(36, None, "open"),
            TimedText(43, 50, "over the end"), TimedText(44, 45, "after")]  # fmt: skip
    assert cues_of_part(cues, 34.0, 10.0) == [
        Cue(0.0, 1.0, "over the start"), Cue(2.0, 10.0, "open"), Cue(9.0, 10.0, "over the end")
    ]  # fmt: skip


@examples(50)
@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 20)), max_size=8),
    st.lists(st.floats(0, 120), max_size=8),
)
def test_cues_at_frames_are_those_on_screen_in_order_each_once(spans, frames):
    cues = [Cue(start, start + length, str(k)) for k, (start, length) in enumerate(spans)]
    shown = [cue.text for cue in cues if any(cue.start_seconds <= frame < cue.end_seconds for frame in frames)]
    assert at_frames(cues, frames) == shown


class TestHarnessText:
    """lmms-eval's text for Video-MME."""

    sampling = Sampling([], 10.0, 2.0, 20)

    def test_only_tagged_text_counts(self, tmp_path):
        put_srt(tmp_path / "x.srt", [(0.0, 5.0, "first"), (5.0, 10.0, "second")])
        with (tmp_path / "x.srt").open("a") as file:
            file.write('\n3\n00:00:01,000 --> 00:00:09,000\nno tag\n\n4\n00:00:01,000 --> 00:00:09,500\n'
                       '<font color="white" size="x72c">other size</font>\n\nno section\n')  # fmt: skip
        sections = srt_sections(tmp_path / "x.srt")
        assert [section.text for section in sections][2:] == [
            "no tag",
            '<font color="white" size="x72c">other size</font>',
        ]
        assert harness_text(sections, self.sampling) == "first\nsecond\nother size"

    def test_cues_between_the_frames_are_not_shown(self):
        sections = [
            self.section(0.0, 0.6, "at 0"), self.section(2.0, 2.4, "between"), self.section(9.4, 10.0, "last")
        ]  # fmt: skip
        assert harness_text(sections, self.sampling, num_frames=2) == "at 0\nlast"

    def test_many_cues_lose_their_order(self):
        """The numbers go through a set; with up to a hundred cues they stay in order."""
        few = [self.section(k, k + 1.0, str(k)) for k in range(100)]
        many = [self.section(k, k + 1.0, str(k)) for k in range(1000)]
        assert harness_text(few, Sampling([], 100.0, 1.0, 100)).split() == [str(int(k * 99 / 31)) for k in range(32)]
        shown = list(map(int, harness_text(many, Sampling([], 1000.0, 1.0, 1000)).split()))
        assert sorted(shown) == [int(k * 999 / 31) for k in range(32)]
        assert shown != sorted(shown)

    def test_of_equal_times_the_last_text_counts(self):
        sections = [self.section(0.0, 9.0, "one"), self.section(0.0, 9.0, "other")]
        assert harness_text(sections, self.sampling) == "other"

    def test_a_cue_without_text_has_no_number(self):
        """Numbers decide the order: with one more, other cues would come first."""
        many = [self.section(k, k + 1.0, str(k)) for k in range(1000)]
        empty = [Section(k + 0.5, k + 0.6, ()) for k in range(1000)]
        both = [section for pair in zip(empty, many) for section in pair]
        sampling = Sampling([], 1000.0, 1.0, 1000)
        assert harness_text(both, sampling) == harness_text(many, sampling)

    @pytest.mark.parametrize(
        ("time", "seconds"),
        [("00:00:01,500", 1.5), ("01:00:00.250", 3600.25), ("00:00:01,5", 1.005), ("00:00:07", 7.0)],
    )
    def test_digits_behind_the_comma_are_milliseconds(self, tmp_path, time, seconds):
        (tmp_path / "x.srt").write_text(f"1\n00:00:00,000 --> {time}\nx\n")
        assert srt_sections(tmp_path / "x.srt") == [Section(0.0, seconds, ("x",))]

    def test_damaged_times_are_refused(self, tmp_path):
        (tmp_path / "x.srt").write_text("1\n00:00 --> 00:01\nx\n")
        with pytest.raises(DataError, match="are no times"):
            srt_sections(tmp_path / "x.srt")

    @staticmethod
    def section(start, end, text):
        return Section(start, end, (f'<font color="white" size=".72c">{text}</font>',))


def test_evenly_spaced_frames_have_both_ends():
    assert evenly_spaced(Sampling([], 10.0, 2.0, 20), 3) == [0.0, 4.75, 9.5]
    assert evenly_spaced(Sampling([], 1.0, 2.0, 1)) == [0.0]
    sections = [Section(0.0, 1.0, ("fi", "rst")), Section(2.0, 3.0, ("never",)), Section(9.0, 10.0, ("last",))]
    assert sections_at_frames(sections, [0.0, 4.75, 9.5]) == "fi rst\nlast"


class TestInterleaving:
    """LongVideoBench's rule."""

    def test_frames_come_before_the_middle_of_a_cue(self):
        cues = [TimedText(1.5, 2.5, "two"), TimedText(3.0, 5.0, "four")]
        assert interleaved(cues, [0, 1, 2, 3, 4, 5], 0.0, 6.0) == [None, None, None, "two", None, None, "four", None]

    def test_a_short_cue_counts_as_one_second(self):
        assert interleaved([TimedText(1.9, 2.2, "x")], [0, 2.4], 0.0, 6.0) == [None, "x", None]
        assert interleaved([TimedText(1.9, 2.2, "x")], [0, 2.6], 0.0, 6.0) == [None, None]

    def test_a_cue_without_a_frame_inside_is_left_out(self):
        assert interleaved([TimedText(1.0, 3.0, "x")], [0, 1, 3], 0.0, 6.0) == [None, None, None]

    def test_a_clip_is_shifted(self):
        assert interleaved([TimedText(1, 2, "early"), TimedText(34, 36, "x")], [0, 1, 2], 34.0, 3.0) == [
            None, None, "x", None
        ]  # fmt: skip

    @examples(50)
    @given(
        st.lists(st.tuples(st.floats(0, 60), st.floats(0, 5)), max_size=8),
        st.lists(st.floats(0, 60), max_size=8, unique=True).map(sorted),
        st.floats(0, 30),
    )
    def test_every_frame_comes_once_and_texts_in_the_order_of_the_file(self, spans, frames, start):
        cues = [TimedText(begin, begin + length, str(k)) for k, (begin, length) in enumerate(spans)]
        sequence = interleaved(cues, frames, start, 60.0)
        assert sequence.count(None) == len(frames)
        texts = [int(text) for text in sequence if text is not None]
        assert texts == sorted(texts)
