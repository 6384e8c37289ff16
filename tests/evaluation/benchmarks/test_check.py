"""`hourllava eval check`: what is there, what is missing, and the exit code."""

import shutil

import pytest

from cli.in_process import error_line, run_here
from evaluation.benchmarks.miniatures import MINIATURES, put_video


@pytest.fixture
def check(tmp_path):
    """Checks a benchmark's miniature, which the caller may change before."""

    def run(name, change=lambda root: None, *options):
        root = MINIATURES[name](tmp_path / name)
        change(root)
        return run_here("eval", "check", name, root, *options)

    return run


def test_what_is_there_and_what_is_missing(check, tmp_path):
    ended = check("video-mme")
    assert ended.code == 9
    assert error_line(ended) == "3 of 13 questions cannot be asked; the lines above say which"
    lines = ended.stdout.splitlines()
    assert lines[0] == "Video-MME, test: 13 questions about 4 videos; published: 2,700 about 900 videos"
    root = tmp_path / "video-mme"
    for line in (
        "videos      3 of 4 are there; missing: AAAAAAAAAA4",
        "subtitles   2 of 4 videos have them, 7 questions do not; missing though the benchmark has them: AAAAAAAAAA4",
        f"archive     videos_chunked_02.zip is still packed; run: unzip -n {root}/videos_chunked_02.zip -d {root}",
        "By length: short 4, medium 3, long 6",
        "note        an id is there twice; both questions are asked: 1, such as 901-1",
        "can be asked: 10 of 13 questions",
    ):
        assert line in lines


CODES = {"video-mme": 9, "longvideobench": 9, "lvbench": 9, "hourvideo": 9}


@pytest.mark.parametrize("name", MINIATURES)
def test_exit_codes(check, name):
    """9 if a file is missing or a row cannot be read; not for what nobody can ask."""
    ended = check(name)
    assert ended.code == CODES.get(name, 0), ended.stdout
    assert "can be asked: " in ended.stdout


def test_videos_that_are_gone_are_told_from_those_that_were_not_downloaded(check):
    assert "gone        1 of the missing ones cannot be had any more: t-RtDI2RWQs" in check("lvbench").stdout


def test_lost_subtitles_alone_are_a_loss(check):
    def change(root):
        put_video(root / "data" / "AAAAAAAAAA4.mp4")
        (root / "subtitle" / "-AAAAAAAAA3.srt").unlink()

    ended = check("video-mme", change)
    assert (ended.code, error_line(ended)) == (9, "the subtitles of 2 videos are missing; the lines above say which")


def test_no_video_at_all_is_an_error(check):
    ended = check("egoschema", lambda root: shutil.rmtree(root / "videos"))
    assert ended.code == 6
    assert error_line(ended).startswith("none of the 3 videos is below ")


def test_answers_that_are_not_public_are_said(check):
    ended = check("egoschema", lambda root: None, "--split", "full")
    assert "answers     1 questions have no public answer: they can be asked, but not scored" in ended.stdout


def test_stubs_are_said(check):
    ended = check("egoschema", lambda root: (root / "videos" / "aaaaaaaa-0000.mp4").write_text("oid sha256:1"))
    assert "no videos   1 files are too small, perhaps Git LFS pointers: videos/aaaaaaaa-0000.mp4" in ended.stdout
    assert ended.code == 9


def test_archives_that_may_be_packed_are_named_only_if_something_is_missing(check):
    def complete(root):
        put_video(root / "videos" / "@user-x-1.mp4")
        (root / "subtitles" / "@user-x-1_en.json").write_text("[]")

    assert "archive" in check("longvideobench").stdout
    ended = check("longvideobench", complete)
    assert ended.code == 0
    assert "archive" not in ended.stdout
