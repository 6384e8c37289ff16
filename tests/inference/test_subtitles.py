from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourllava.clock import format_clock
from hourllava.errors import DataError
from hourllava.inference.subtitles import Cue, read_subtitles, subtitles_prompt

SRT = """1
00:00:01,000 --> 00:00:02,500 X1:40 X2:600
<i>Hello</i> {\\an8}there,
second <font color="#ff0000">line</font>

2
00:01:03.250 --> 01:00:04,5
1999 was
2000

3
62:03 --> 62:05
Fish &amp; chips, 1 < 2
"""
SRT_CUES = [
    Cue(1.0, 2.5, "Hello there, second line"),
    Cue(63.25, 3604.5, "1999 was 2000"),
    Cue(3723.0, 3725.0, "Fish & chips, 1 < 2"),
]

VTT = """WEBVTT - lecture
Kind: captions

STYLE
::cue { color: red }

NOTE first
note with --> in it

opening
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Good <c.yellow>morning</c></v> <00:01.500>all

NOTE a comment
of two lines

00:00:03.000 --> 00:00:04.000
NOTE this is spoken

amid a blank line

last one
00:00:05.000 --> 00:00:06.000
The end
"""
VTT_CUES = [
    Cue(1.0, 2.5, "Good morning all"),
    Cue(3.0, 4.0, "NOTE this is spoken amid a blank line"),
    Cue(5.0, 6.0, "The end"),
]

# As automatic captions roll: every cue shows the line before it once more, 10 ms cues hold it in between.
ROLLING = """WEBVTT

00:00:00.000 --> 00:00:02.000 align:start
 
one<00:00:00.500><c> two</c>

00:00:02.000 --> 00:00:02.010
one two
 

00:00:02.010 --> 00:00:04.000
one two
three<00:00:03.000><c> four</c>

00:00:04.000 --> 00:00:04.010
three four
 

00:00:04.010 --> 00:00:06.000
three four
five

00:01:00.000 --> 00:01:01.000
five
"""  # noqa: W293  # lines of one space are part of such files
ROLLING_CUES = [
    Cue(0.0, 2.01, "one two"),
    Cue(2.01, 4.01, "three four"),
    Cue(4.01, 6.0, "five"),
    Cue(60.0, 61.0, "five"),
]


@pytest.mark.parametrize(
    ("name", "text", "cues"), [("a.srt", SRT, SRT_CUES), ("a.vtt", VTT, VTT_CUES), ("r.VTT", ROLLING, ROLLING_CUES)]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_known_files(tmp_path: Path, name: str, text: str, cues: list[Cue], encoding: str, newline: str) -> None:
    (tmp_path / name).write_text(text, encoding=encoding, newline=newline)
    assert read_subtitles(tmp_path / name) == cues


def read_text(folder: Path, text: str, name: str = "a.srt") -> list[Cue]:
    (folder / name).write_text(text)
    return read_subtitles(folder / name)


def test_latin_1(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nCafé\n".encode("latin-1"))
    assert read_subtitles(tmp_path / "a.srt") == [Cue(1.0, 2.0, "Café")]


def test_numbers_and_blank_lines_may_be_missing(tmp_path: Path) -> None:
    text = "00:01 --> 00:02\nno number\n00:03 --> 00:04\nno blank line\n3\n00:05 --> 00:06\nthird\n\n00:07 --> 00:08\n9"
    assert [cue.text for cue in read_text(tmp_path, text)] == ["no number", "no blank line", "third", "9"]


def test_a_comment_right_above_a_time_is_no_name_of_a_cue(tmp_path: Path) -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\nspoken\n\nNOTE here\n00:03.000 --> 00:04.000\nnext"
    assert [cue.text for cue in read_text(tmp_path, text, "a.vtt")] == ["spoken", "next"]


def test_cues_come_in_time_order_and_never_end_before_they_start(tmp_path: Path) -> None:
    text = "1\n00:00:05,000 --> 00:00:04,000\nb\n\n2\n00:00:01,000 --> 00:00:02,000\na\n"
    assert read_text(tmp_path, text) == [Cue(1.0, 2.0, "a"), Cue(5.0, 5.0, "b")]


def test_doubled_cues_are_merged_and_empty_ones_dropped(tmp_path: Path) -> None:
    text = "00:01 --> 00:03\nsame\n\n00:01 --> 00:04\nsame\n\n00:05 --> 00:06\n<i> </i>\n\n00:09 --> 00:10\nsame\n"
    assert read_text(tmp_path, text) == [Cue(1.0, 4.0, "same"), Cue(9.0, 10.0, "same")]


def test_a_vtt_file_may_have_no_cues(tmp_path: Path) -> None:
    assert read_text(tmp_path, "WEBVTT\n", "a.vtt") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", b"", "holds no subtitles"),
        ("a.srt", b"Just some prose.\nNothing timed.\n", "holds no subtitles"),
        ("a.srt", bytes(range(256)) * 20, "holds no subtitles"),
        ("a.srt", b"\xff\xfeodd", "damaged"),
        ("a.ass", b"[Script Info]", "give a .srt or .vtt file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_subtitles(tmp_path / name)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_subtitles(tmp_path / "a.srt")
    (tmp_path / "folder.vtt").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        read_subtitles(tmp_path / "folder.vtt")


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(1, 10**4), st.text("abc xyz", min_size=1).filter(str.strip)),
        min_size=1,
    )
)
def test_written_cues_are_read_back(tmp_path_factory: pytest.TempPathFactory, raw: list[tuple[int, int, str]]) -> None:
    def stamp(milliseconds: int) -> str:
        return f"{format_clock(milliseconds // 1000).rjust(8, '0')},{milliseconds % 1000:03d}"

    start, blocks, expected = 0, [], []
    for number, (pause, length, words) in enumerate(raw):
        start += pause + 51  # no two touch, so nothing is taken for a repetition
        blocks.append(f"{number}\n{stamp(start)} --> {stamp(start + length)}\n{words}\n")
        expected.append(Cue(start / 1000, (start + length) / 1000, " ".join(words.split())))
        start += length
    cues = read_text(tmp_path_factory.mktemp("srt"), "\n".join(blocks))
    assert [cue.text for cue in cues] == [cue.text for cue in expected]
    for cue, wanted in zip(cues, expected, strict=True):
        assert (cue.start_seconds, cue.end_seconds) == pytest.approx((wanted.start_seconds, wanted.end_seconds))


CUES = [Cue(10.0 * k, 10.0 * k + 5, f"word{k}") for k in range(10)]


def count_words(text: str) -> int:
    return len(text.split())


def test_all_subtitles_if_they_fit() -> None:
    text = subtitles_prompt(list(reversed(CUES)), [(50.0, 60.0)], 20, count_words)
    assert text.splitlines()[:2] == ["[0:00:00] word0", "[0:00:10] word1"]
    assert len(text.splitlines()) == 10


@pytest.mark.parametrize(
    ("spans", "max_tokens", "kept"),
    [
        ([(50.0, 53.0)], 2, [5]),
        ([(50.0, 53.0)], 7, [4, 5, 6]),
        ([(0.0, 1.0), (90.0, 91.0)], 8, [0, 1, 8, 9]),
        ([(36.0, 36.0)], 2, [3]),  # between cues: 1 s after one, 4 s before the other
        ([], 4, [0, 1]),
        ([(50.0, 53.0)], 1, []),
        ([(50.0, 53.0)], 0, []),
    ],
)
def test_the_nearest_subtitles_if_not_all_fit(
    spans: list[tuple[float, float]], max_tokens: int, kept: list[int]
) -> None:
    lines = subtitles_prompt(CUES, spans, max_tokens, count_words).splitlines()
    assert lines == [f"[{format_clock(10 * k)}] word{k}" for k in kept]


def test_a_cue_too_long_does_not_keep_its_neighbours_out() -> None:
    cues = [Cue(0, 1, "before"), Cue(10, 11, "far too many words"), Cue(25, 26, "after")]
    assert subtitles_prompt(cues, [(10, 11)], 4, count_words) == "[0:00:00] before\n[0:00:25] after"


def test_no_subtitles() -> None:
    assert subtitles_prompt([], [(0.0, 1.0)], 100, count_words) == ""


@given(
    starts=st.lists(st.integers(0, 5000), max_size=20),
    span=st.tuples(st.integers(0, 5000), st.integers(0, 100)),
    max_tokens=st.integers(0, 400),
)
def test_the_budget_always_holds(starts: list[int], span: tuple[int, int], max_tokens: int) -> None:
    def count(text: str) -> int:  # more for the whole than for its parts
        return len(text) + text.count("\n") ** 2

    cues = [Cue(float(start), start + 2.0, "x" * (start % 13)) for start in starts]
    spans = [(float(span[0]), float(sum(span)))]
    assert count(subtitles_prompt(cues, spans, max_tokens, count)) <= max_tokens
