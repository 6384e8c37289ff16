"""Readers: the questions of every published shape, with all quirks counted and said."""

import dataclasses
import json
import shutil
import subprocess

import pytest

from evaluation.benchmarks.miniatures import (
    HUB_MINIATURES,
    MINIATURES,
    put_json,
    put_video,
    put_zip,
)
from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks.catalogue import BENCHMARKS, find_benchmark
from hourllava.evaluation.benchmarks.folder import DataFolder


def read(root, name, split=None):
    benchmark = find_benchmark(name)
    return benchmark.read(DataFolder(root), benchmark.split(split))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The table of each miniature; the hub's have `-hub` in their names."""
    tables = {}
    for suffix, miniatures in (("", MINIATURES), ("-hub", HUB_MINIATURES)):
        for name, make in miniatures.items():
            tables[name + suffix] = read(make(tmp_path_factory.mktemp("data") / name), name)
    return tables


def test_every_benchmark_has_a_miniature():
    assert MINIATURES.keys() == BENCHMARKS.keys() - {"marathonworld-1", "needles"}  # those are made, not read


NUM_QUESTIONS = {
    "video-mme": 13, "tempcompass": 11, "longvideobench": 4, "lvbench": 5, "mlvu": 7, "egoschema": 3, "cg-bench": 3,
    "hourvideo": 3, "marathonworld": 8, "tempcompass-hub": 11, "longvideobench-hub": 4, "lvbench-hub": 5, "mlvu-hub": 8,
    "egoschema-hub": 3,
}  # fmt: skip


def test_all_questions_are_read(tables):
    assert {name: len(table.questions) for name, table in tables.items()} == NUM_QUESTIONS
    for name, table in tables.items():
        assert len({question.id for question in table.questions}) == len(table.questions), name
        assert [question.place for question in table.questions] == list(range(len(table.questions)))
        for question in table.questions:
            assert question.gold is not None, (name, question.id)
            if question.kind == "choice":
                assert 2 <= len(question.options) <= 8, (name, question.id)


@pytest.mark.parametrize("name", ["tempcompass", "longvideobench", "lvbench"])
def test_the_authors_files_and_the_hubs_hold_the_same_questions(tables, name):
    def content(table):
        ignored = {"file": None, "groups": {}, "subtitles": None}
        return [question.model_copy(update=ignored) for question in table.questions]

    assert content(tables[name]) == content(tables[f"{name}-hub"])


NOTES = {
    "video-mme": {
        "the published answer is none of the options, so no answer can be right": "902-2",
        "an id is there twice; both questions are asked": "901-1",
    },
    "tempcompass": {"a question is there twice; both are asked": "yes_no/1000000001_reverse/action/2"},
    "lvbench": {"time_reference is no stretch of time": "903: 'everywhere'"},
    "mlvu": {
        "an option is there twice; the published letter alone counts": "plotQA/movie101_1/1",
        "the published answer is none of the options, so no answer can be right": "needle/needle_4/1",
        "a question is there twice; both are asked": "ego/ego_1/2",
        "a listed length is over three hours; the file's own counts": "surveil_176.mp4: 32550 s",
    },
    "longvideobench": {}, "egoschema": {}, "cg-bench": {}, "marathonworld": {},
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_what_is_odd_is_counted_with_an_example(tables, name):
    assert tables[name].problems.examples == NOTES[name]
    assert all(count == 1 for count in tables[name].problems.counts.values())


def test_what_cannot_be_asked_is_counted(tables):
    assert tables["mlvu"].left_out == {
        "answered freely and scored by a judge whose prompt is not published here": 2
    }  # fmt: skip
    assert tables["hourvideo"].left_out == {"its options are pictures": 2, "the row cannot be read": 1}
    assert tables["hourvideo"].num_published == 6
    (line,) = tables["hourvideo"].problems.lines()
    assert "question 6: a predictive question without the time up to which the video is shown" in line


def by_id(table):
    return {question.id: question for question in table.questions}


def test_videos_are_found_under_any_suffix_and_folder(tables):
    assert tables["video-mme"].videos == {
        "AAAAAAAAAA1": "data/AAAAAAAAAA1.MP4",
        "AAAAAAAAAA2": "data/AAAAAAAAAA2.mp4",
        "-AAAAAAAAA3": "data/-AAAAAAAAA3.mkv",
        "AAAAAAAAAA4": None,
    }
    assert tables["lvbench"].videos["LVBENCHkey2"] == "videos/00000/000000001.mp4"
    assert tables["mlvu"].videos["needle_9"] == "MLVU/video/2_needle/needle_9.mp4"
    assert tables["mlvu-hub"].videos["needle_900"] == "video/needle_900.mp4"


def test_a_folder_in_a_videos_name_decides(tmp_path):
    for task in ("1_plotQA", "4_count"):
        put_video(tmp_path / task / "same.mp4")
        put_json(
            tmp_path / f"{task}.json",
            [
                {
                    "video": "same.mp4",
                    "question": "?",
                    "candidates": ["a", "b"],
                    "answer": "a",
                    "question_type": task[2:],
                }
            ],
        )
    assert [question.file for question in read(tmp_path, "mlvu").questions] == ["1_plotQA/same.mp4", "4_count/same.mp4"]


def test_clips_are_cut_out_of_their_subtitles_video(tables):
    clip = by_id(tables["longvideobench"])["LVBvideo001_0"]
    assert (clip.end_seconds, clip.subtitles_start_seconds) == (2.0, 34.0)
    assert clip.subtitles == "subtitles/LVBvideo001_en.json"
    missing = by_id(tables["longvideobench"])["@user-x-1_0"]
    assert (missing.file, missing.subtitles, missing.needs_subtitles) == (None, None, True)


def test_unused_options_are_no_options(tables):
    numbers = [len(question.options) for question in tables["longvideobench-hub"].questions]
    assert numbers == [2, 5, 3, 4]


def test_long_videos_need_subtitles(tables):
    needed = {question.video: question.needs_subtitles for question in tables["video-mme"].questions}
    assert needed == {"AAAAAAAAAA1": False, "AAAAAAAAAA2": False, "-AAAAAAAAA3": True, "AAAAAAAAAA4": True}


def test_moments_are_evidence_and_in_no_prompt(tables):
    assert by_id(tables["lvbench"])["902"].moments == ((3723.0, 3730.0),)
    assert by_id(tables["cg-bench"])["1"].moments == ((0.0, 1.0), (1.0, 2.0))
    assert by_id(tables["hourvideo"])["q5"].moments == ((0.0, 1.0), (1.0, 2.0))
    for name, table in tables.items():
        for protocol in BENCHMARKS[name.removesuffix("-hub")].protocols.values():
            for question in table.questions:
                bare = question.model_copy(update={"moments": ()})
                assert protocol.prompt(question, None) == protocol.prompt(bare, None)


def test_a_predictive_question_shows_only_the_beginning(tables):
    questions = by_id(tables["hourvideo"])
    assert (questions["q2"].end_seconds, questions["q2"].moments) == (2.0, ())
    assert questions["q1"].end_seconds is None


def test_captions_bring_the_first_choice_question_for_the_judge(tables):
    for name in ("tempcompass", "tempcompass-hub"):
        (caption,) = (question for question in tables[name].questions if question.kind == "captioning")
        assert caption.judge_question.startswith("What is the cup doing?")
        assert caption.judge_answer == "B. emptying"


def test_finer_aspects_come_from_the_meta_file(tables):
    fine = {group for question in tables["tempcompass"].questions for group in question.groups["fine"]}
    assert {"multi-choice: object motion", "multi-choice: order", "yes_no: absolute speed"} <= fine
    assert all("fine" not in question.groups for question in tables["tempcompass-hub"].questions)


def test_six_options_of_the_test_split(tmp_path):
    table = read(HUB_MINIATURES["mlvu"](tmp_path), "mlvu", "test")
    assert [question.gold_letter for question in table.questions] == list("AFEDCBAFE")
    assert all(question.letters == "ABCDEF" for question in table.questions)


@pytest.mark.parametrize(("name", "split"), [("longvideobench", "test"), ("hourvideo", "test"), ("egoschema", "full")])
def test_answers_that_are_not_public_are_none(tmp_path, name, split):
    table = read(MINIATURES[name](tmp_path), name, split)
    assert any(question.gold is None and question.gold_index is None for question in table.questions)
    assert not table.problems.counts or "the row cannot be read" in table.problems.counts


def test_a_revision_tells_files_apart(tmp_path, tables):
    root = MINIATURES["egoschema"](tmp_path)
    assert read(root, "egoschema").revision == tables["egoschema"].revision
    answers = json.loads((root / "subset_answers.json").read_text())
    put_json(root / "subset_answers.json", dict.fromkeys(answers, 0))
    assert read(root, "egoschema").revision != tables["egoschema"].revision


def test_damaged_rows_are_left_out_and_counted(tmp_path):
    root = MINIATURES["cg-bench"](tmp_path)
    rows = json.loads((root / "cgbench_mini.json").read_text())
    damaged = [
        {**rows[0], "qid": 11, "question": None},
        {**rows[0], "qid": 12, "choices": "none"},
        {**rows[0], "qid": 13, "video_uid": None},
        {**rows[0], "qid": 14, "question": "half a pair \ud800"},
        {**rows[0], "qid": 15, "right_answer": 3},
    ]
    text = json.dumps([*rows, *damaged, "no object"]).replace('"no object"', '"no object", {"qid": x}, {"qid": 99}')
    (root / "cgbench_mini.json").write_text(text)
    table = read(root, "cg-bench")
    assert len(table.questions) == len(rows)
    assert table.left_out == {"the row cannot be read": len(damaged) + 1}  # the object with nothing in it
    assert table.problems.counts["a row cannot be read"] >= 1


@pytest.mark.parametrize("name", MINIATURES)
def test_an_empty_folder_is_an_error_that_says_what_to_do(tmp_path, name):
    with pytest.raises(DataError, match=rf"holds no questions of {name} .*(download|hourllava world make)"):
        read(tmp_path, name)
    put_zip(tmp_path / "annotations.zip", ["all.json"])
    with pytest.raises(DataError, match="or unpack first: unzip -n"):
        read(tmp_path, name)


def test_names_that_do_not_exist(tmp_path):
    with pytest.raises(ConfigError, match="there is no benchmark 'mmlu'; there are: video-mme, "):
        find_benchmark("mmlu")
    with pytest.raises(ConfigError, match="--split is 'x'; MLVU has: dev, test"):
        find_benchmark("mlvu").split("x")
    with pytest.raises(ConfigError, match=r"--protocol is 'x'; MLVU has: lmms-eval-0\.7\.2, "):
        find_benchmark("mlvu").protocol("x")
    with pytest.raises(ConfigError, match="--rule is 'x'; MLVU has: "):
        find_benchmark("mlvu").rule("x")
    with pytest.raises(ConfigError, match="is no folder"):
        DataFolder(tmp_path / "nowhere")


def test_stubs_hidden_folders_and_circles_are_no_videos(tmp_path):
    (tmp_path / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\n")
    put_video(tmp_path / ".cache" / "hidden.mp4")
    put_video(tmp_path / "videos" / "real.mp4")
    (tmp_path / "videos" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked.mp4").symlink_to(tmp_path / "videos" / "real.mp4")
    folder = DataFolder(tmp_path)
    assert folder.stubs == ["pointer.mp4"]
    assert (folder.video("pointer"), folder.video("hidden")) == (None, None)
    assert folder.video("real.mkv") == "videos/real.mp4"
    assert folder.video("linked") == "linked.mp4"


class TestArchives:
    """Archives that are still packed are named with the command that unpacks them; the command works."""

    @pytest.fixture
    def source(self, tmp_path):
        put_video(tmp_path / "source" / "videos" / "a.mp4")
        return tmp_path / "source"

    def unpacked(self, root):
        (archive,) = DataFolder(root).archives()
        subprocess.run(["sh", "-c", archive.command], check=True, capture_output=True, cwd="/")
        return DataFolder(root).video("a")

    @pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
    @pytest.mark.parametrize("in_parts", [False, True])
    def test_tar(self, tmp_path, source, suffix, in_parts):
        root = tmp_path / "da ta"  # a name that needs quotes
        root.mkdir()
        whole = root / f"videos.{suffix}"
        subprocess.run(["tar", "-caf", whole, "-C", source, "videos"], check=True)
        if in_parts:
            content = whole.read_bytes()
            whole.unlink()
            for part, piece in (("aa", content[:100]), ("ab", content[100:])):
                (root / f"videos.{suffix}.part.{part}").write_bytes(piece)
        (archive,) = DataFolder(root).archives()
        assert archive.is_packed is None
        assert len(archive.names) == 1 + in_parts
        assert self.unpacked(root) == "videos/a.mp4"

    @pytest.mark.skipif(shutil.which("unzip") is None, reason="needs unzip")
    @pytest.mark.parametrize("num_files", [1, 2])
    def test_zip(self, tmp_path, num_files):
        for k in range(num_files):
            put_zip(tmp_path / f"videos chunked_0{k + 1}.zip", [f"videos/{'ab'[k]}.mp4"])
        assert self.unpacked(tmp_path) == "videos/a.mp4"
        assert [archive.is_packed for archive in DataFolder(tmp_path).archives()] == [False]

    @pytest.mark.skipif(shutil.which("unzip") is None, reason="needs unzip")
    def test_a_zip_in_pieces(self, tmp_path):
        put_zip(tmp_path / "all.zip", ["videos/a.mp4"])
        content = (tmp_path / "all.zip").read_bytes()
        (tmp_path / "all.zip").unlink()
        for number, piece in (("001", content[:50]), ("002", content[50:])):
            (tmp_path / f"all.zip.{number}").write_bytes(piece)
        assert self.unpacked(tmp_path) == "videos/a.mp4"

    def test_only_what_is_packed_is_named(self, tmp_path):
        root = MINIATURES["video-mme"](tmp_path)
        (archive,) = DataFolder(root).archives()
        assert archive.names == ("videos_chunked_02.zip",)
        put_video(root / "elsewhere" / "AAAAAAAAAA4.mp4")
        (archive,) = DataFolder(root).archives()
        assert archive.is_packed is False

    def test_a_damaged_zip_counts_as_packed(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(b"no zip")
        assert [archive.is_packed for archive in DataFolder(tmp_path).archives()] == [True]


def test_totals_count_a_question_in_each_of_its_groups(tables):
    totals = tables["lvbench"].totals()
    assert totals["all"] == {"all": 5}
    assert sum(totals["ability"].values()) == 6
    assert dataclasses.replace(tables["lvbench"], questions=()).totals() == {"all": {"all": 0}}
