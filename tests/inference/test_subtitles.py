import codecs
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.clock import format_clock
from hourllava.errors import ConfigError, DataError
from hourllava.inference.questions import subtitle_text
from hourllava.inference.questions.subtitles import Cue, SubtitleLines, read_subtitles

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


# Encodings

WORDS = {
    "western": ["Café crème, déjà vu", "“Don’t” – 5 €…", "Größe über Öl", "¿Qué? ¡Niño!", "façade œuvre"],
    "russian": ["Привет, как дела?", "Я не знаю", "Хорошо"],
    "japanese": ["こんにちは、世界", "カタカナも", "漢字です"],
    "chinese": ["你好，世界", "我不知道", "好的"],
    "korean": ["안녕하세요", "모르겠어요"],
    "greek": ["Καλημέρα κόσμε", "Δεν ξέρω"],
}


def srt(texts: Sequence[str], newline: str = "\n") -> str:
    lines = [f"{n}\n00:00:{2 * n:02d},000 --> 00:00:{2 * n + 1:02d},000\n{text}\n" for n, text in enumerate(texts, 1)]
    return "\n".join(lines).replace("\n", newline)


def read_bytes(folder: Path, content: bytes, encoding: str | None = None) -> list[str]:
    (folder / "a.srt").write_bytes(content)
    return [cue.text for cue in read_subtitles(folder / "a.srt", encoding)]


@pytest.mark.parametrize("language", WORDS)
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "mark utf-16-be"]
)
def test_unicode_is_told_with_and_without_a_mark(tmp_path: Path, language: str, encoding: str) -> None:
    mark = "\ufeff" if encoding.startswith("mark ") else ""
    content = (mark + srt(WORDS[language])).encode(encoding.removeprefix("mark "))
    assert read_bytes(tmp_path, content) == WORDS[language]


@pytest.mark.parametrize("text", WORDS["western"])
def test_western_text_is_windows_1252_and_that_is_said(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_bytes(tmp_path, srt([text, "plain"]).encode("cp1252")) == [text, "plain"]
    assert "is read as windows-1252" in caplog.text


def test_bytes_that_windows_1252_leaves_open_stay_control_characters(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, srt(["a X b"]).encode().replace(b"X", b"\x81")) == ["a \x81 b"]


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        ("russian", "cp1251"), ("russian", "koi8-r"), ("russian", "cp866"), ("japanese", "shift_jis"),
        ("japanese", "euc_jp"), ("japanese", "iso2022_jp"), ("chinese", "gbk"), ("chinese", "gb18030"),
        ("korean", "euc_kr"), ("greek", "iso8859_7"),
    ],
)  # fmt: skip
def test_other_alphabets_are_refused_until_they_are_named(tmp_path: Path, language: str, encoding: str) -> None:
    content = srt([*WORDS[language], "OK"]).encode(encoding)
    with pytest.raises(DataError, match="name its encoding") as error:
        read_bytes(tmp_path, content)
    assert "\n" not in str(error.value)
    assert read_bytes(tmp_path, content, encoding) == [*WORDS[language], "OK"]


@examples(50)
@given(place=st.integers(0, 10**6), byte=st.integers(0x80, 0xFF), language=st.sampled_from(sorted(WORDS)))
def test_a_bad_byte_in_utf_8_costs_one_character(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, language: str
) -> None:
    texts = [*WORDS[language], "the last one"]
    content = srt(texts).encode()
    end = content.index(b"the last one")
    at = end + place % len("the last one")
    read = read_bytes(tmp_path_factory.mktemp("srt"), content[:at] + bytes([byte]) + content[at + 1 :])
    assert read[:-1] == texts[:-1]
    assert read[-1].replace("\ufffd", "?") == "the last one"[: at - end] + "?" + "the last one"[at - end + 1 :]


def test_what_is_damaged_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = srt(["Grüße", "x X y X"]).encode().replace(b"X", b"\xff")
    assert read_bytes(tmp_path, content) == ["Grüße", "x \ufffd y \ufffd"]
    assert "2 characters are damaged" in caplog.text
    with pytest.raises(DataError, match="a byte is missing amid"):
        read_bytes(tmp_path, (codecs.BOM_UTF16_LE + srt(["one", "two"]).encode("utf-16-le")).replace(b"n", b"", 1))
    cut = (codecs.BOM_UTF16_LE + srt(["one", "two"]).encode("utf-16-le"))[:-3]
    assert read_bytes(tmp_path, cut)[0] == "one"


def test_an_encoding_that_does_not_fit_or_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not in utf-8"):
        read_bytes(tmp_path, srt(["Café"]).encode("cp1252"), "utf-8")
    for name in ("klingon", "hex", "a\0b", ""):
        with pytest.raises(ConfigError, match="there is no text encoding"):
            read_bytes(tmp_path, srt(["a"]).encode(), name)


# Lines and times


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\x0b", "\x0c", "\x1c"])
def test_lines_end_at_line_feeds_only(tmp_path: Path, newline: str, mark: str) -> None:
    read = read_bytes(tmp_path, srt([f"one{mark}two", "three"], newline).encode())
    assert [text.replace(mark, " ").split() for text in read] == [["one", "two"], ["three"]]


@pytest.mark.parametrize(
    ("line", "times"),
    [
        ("00:00:03,500 --> 00:00:04,500", (3.5, 4.5)),
        ("00:00:03:500 --> 00:00:04:500", (3.5, 4.5)),
        ("00:03:500 --> 00:04:500", (3.5, 4.5)),
        ("00:00:03, 500 --> 00:00:04, 500", (3.5, 4.5)),
        ("00: 00: 03,500 --> 00 :00 :04,500", (3.5, 4.5)),
        ("00:00:03;500 --> 00:00:04;500", (3.5, 4.5)),
        ("00:00:03,500 -> 00:00:04,500", (3.5, 4.5)),
        ("00:00:03,500 -- > 00:00:04,500", (3.5, 4.5)),
        ("00:00:03,500 \u2013> 00:00:04,500", (3.5, 4.5)),
        ("00:00:03,500-->00:00:04,500 position:50%", (3.5, 4.5)),
        ("  0:0:3.5   -->   0:0:4.5  ", (3.5, 4.5)),
        ("00:00:03:12 --> 00:00:04:12", (3.0, 4.0)),
        ("00:00:-3,000 --> 00:00:04,000", (3.0, 4.0)),
        ("-00:00:01,500 --> 00:00:04,000", (0.0, 4.0)),
        ("00:00:03,500 --> ", (3.5, 3.5)),
        ("00:00:03,500 --> soon", (3.5, 3.5)),
        ("0x:00:03,500 --> 00:00:04,500", None),  # speech, as far as anybody can tell
        ("12:30 -> 13:00", None),
    ],
)
def test_odd_timing_lines_swallow_no_neighbour(tmp_path: Path, line: str, times: tuple[float, float] | None) -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,000\nFirst\n\n2\n{line}\nSecond\n\n3\n00:00:08,000 --> 00:00:09,000\nThird\n"
    cues = {cue.text: (cue.start_seconds, cue.end_seconds) for cue in read_text(tmp_path, text)}
    if times is None:
        assert cues == {f"First 2 {line} Second": (1.0, 2.0), "Third": (8.0, 9.0)}
    else:
        assert cues == {"First": (1.0, 2.0), "Second": pytest.approx(times), "Third": (8.0, 9.0)}


@pytest.mark.parametrize(
    "line",
    ["00:00:xx,000 --> never".replace("xx", "1:2:3:4:5"), ": --> :", f"{'9' * 5000}:00:00 --> 1", "-0:0:2 --> -0:0:1"],
)
def test_cues_without_a_usable_time_are_left_out_and_counted(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"00:00:01,000 --> 00:00:02,000\nFirst\n\n{line}\nSecond\n\n00:00:08,000 --> 00:00:09,000\nThird\n"
    assert [cue.text for cue in read_text(tmp_path, text)] == ["First", "Third"]
    assert "1 cues are left out" in caplog.text


@pytest.mark.parametrize(
    "entity", ["&#" + "9" * 5000 + ";", "&#99999999999", "&#x" + "F" * 5000 + ";", "&#xD800;", "&bogus;"]
)
def test_entities_of_any_size(tmp_path: Path, entity: str) -> None:
    assert read_text(tmp_path, f"00:01 --> 00:02\nx {entity} y\n")[0].text.startswith("x ")


@pytest.mark.parametrize(
    "piece", ["{\\", "{\\{", "<a", "&#", "00:", "0:0 --", " ", "-", "-- ", ":", "1,", "\r", "&#9", "\u2013"]
)
def test_reading_takes_time_in_proportion(tmp_path: Path, piece: str) -> None:
    """A quadratic pattern would take minutes for these, and hours for the largest file that is read."""
    body = piece * (100_000 // len(piece))
    text = f"00:00:01,000 --> 00:00:02,000\nFirst\n{body}\n{body}x --> {body}\n"
    assert read_text(tmp_path, text)[0].text.startswith("First")


def test_files_that_are_too_large_or_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subtitle_text, "MAX_SUBTITLE_BYTES", 2**20)
    (tmp_path / "a.srt").write_bytes(bytes(2**20 + 1))
    with pytest.raises(DataError, match="subtitles may have 1 MiB"):
        read_subtitles(tmp_path / "a.srt")
    os.mkfifo(tmp_path / "pipe.srt")
    for path, message in (
        (tmp_path / "pipe.srt", "no regular file"),
        ("a\0.srt", "null"),
        ("a" * 5000 + ".srt", "too long"),
    ):
        with pytest.raises(DataError, match=message):
            read_subtitles(path)


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
        ("a.srt", bytes(range(256)) * 20, "name its encoding"),
        ("a.srt", b"\xff\xfeodd", "holds no subtitles"),
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


@examples(50)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(1, 10**4), st.text("abc xyz", min_size=1).filter(str.strip)),
        min_size=1,
        max_size=20,
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


def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_all_subtitles_if_they_fit() -> None:
    text = SubtitleLines(list(reversed(CUES)), 20, count_words).near([(50.0, 60.0)])
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
    lines = SubtitleLines(CUES, max_tokens, count_words).near(spans).splitlines()
    assert lines == [f"[{format_clock(10 * k)}] word{k}" for k in kept]


def test_a_cue_too_long_does_not_keep_its_neighbours_out() -> None:
    cues = [Cue(0, 1, "before"), Cue(10, 11, "far too many words"), Cue(25, 26, "after")]
    assert SubtitleLines(cues, 4, count_words).near([(10, 11)]) == "[0:00:00] before\n[0:00:25] after"


def test_lines_are_counted_in_one_call_and_huge_ones_not_at_all() -> None:
    calls = []

    def count(texts: Sequence[str]) -> list[int]:
        calls.append(list(texts))
        return count_words(texts)

    cues = [*CUES, Cue(51.0, 52.0, "x" * 10_000)]
    lines = SubtitleLines(cues, 4, count)
    assert [len(call) for call in calls] == [len(CUES)]
    assert lines.near([(50.0, 53.0)]) == "[0:00:40] word4\n[0:00:50] word5"
    assert lines.near([(11.0, 12.0)]) == "[0:00:00] word0\n[0:00:10] word1"
    assert [len(call) for call in calls] == [len(CUES), 1, 1]


def test_no_subtitles() -> None:
    lines = SubtitleLines([], 100, count_words)
    assert (lines.whole, lines.near([(0.0, 1.0)])) == ("", "")


@given(
    starts=st.lists(st.integers(0, 5000), max_size=20),
    span=st.tuples(st.integers(0, 5000), st.integers(0, 100)),
    max_tokens=st.integers(0, 400),
)
def test_the_budget_always_holds(starts: list[int], span: tuple[int, int], max_tokens: int) -> None:
    def count(texts: Sequence[str]) -> list[int]:  # more for the whole than for its parts
        return [len(text) + text.count("\n") ** 2 for text in texts]

    cues = [Cue(float(start), start + 2.0, "x" * (start % 13)) for start in starts]
    spans = [(float(span[0]), float(sum(span)))]
    lines = SubtitleLines(cues, max_tokens, count)
    assert count([lines.near(spans)])[0] <= max_tokens
    assert lines.whole in (None, lines.near(spans))
