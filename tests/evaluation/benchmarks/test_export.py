"""Exports: samples of lmms-eval, tables of VLMEvalKit, files of the benchmarks' own scripts."""

import ast
import csv
import json

import pytest

from cli.in_process import error_line, run_here
from evaluation.benchmarks.answers import answered, write_run
from evaluation.benchmarks.miniatures import HUB_MINIATURES, MINIATURES
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.raw import DataSummary

TEXTS = ("B", "The answer is C.", "nothing that can be read", "A", "yes", "E")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    made = {}

    def table(name):
        if name not in made:
            root = HUB_MINIATURES.get(name, MINIATURES[name])(tmp_path_factory.mktemp("data") / name)
            benchmark = find_benchmark(name)
            made[name] = benchmark.read(DataFolder(root), benchmark.split(None))
        return made[name]

    return table


def export(tmp_path, table, *options, left_out=()):
    """(answers, folder of the exported files, what was said) of a run in which some questions are not answered."""
    questions = [question for question in table.questions if question.place not in left_out]
    answers = [answered(question, TEXTS[question.place % len(TEXTS)]) for question in questions]
    out = write_run(tmp_path / "run", table.benchmark, answers, model="owner/name")
    (out / "data.json").write_text(DataSummary.of(table).model_dump_json())
    ended = run_here("eval", "export", out, *options)
    assert ended.code == 0, ended.stderr
    return answers, out / "export", ended.stdout


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("name", MINIATURES)
def test_samples_of_lmms_eval_have_the_scores_of_the_run(tmp_path, tables, name):
    answers, folder, _ = export(tmp_path, tables(name), "--form", "lmms-eval", left_out=(1,))
    files = sorted((folder / "lmms-eval").glob("hourllava_samples_*.jsonl"))
    samples = [sample for path in files for sample in lines_of(path)]
    assert len(samples) == len(answers)
    assert run_here("eval", "score", tmp_path / "run").code == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    told = [sample["score"] for sample in samples]
    # The metric of EgoSchema is itself called score, so it stands in its place.
    known = [one["score"] if isinstance(one, dict) else one for one in told if one is not None]
    cell = scores["axes"]["all"]["all"]
    assert (sum(known), len(known)) == (cell["right"], cell["n"])
    assert {sample["input"] for sample in samples} == {answer.prompt for answer in answers}
    results = json.loads((folder / "lmms-eval" / "hourllava_results.json").read_text())["results"]
    assert [f"hourllava_samples_{task}.jsonl" for task in sorted(results)] == [path.name for path in files]
    if len(results) == 1:
        (figures,) = results.values()
        (figure,) = [value for key, value in figures.items() if key.endswith(",none")]
        assert figure in (scores["headline"]["accuracy"], pytest.approx(100 * scores["headline"]["accuracy"]))


def test_rows_keep_their_numbers_when_others_are_missing(tmp_path, tables):
    """TempCompass has a file of rows for each task; lmms-eval joins two runs by the row's number in it."""
    table = tables("tempcompass")
    _, folder, _ = export(tmp_path, table, left_out=(0, 5))
    for path in (folder / "lmms-eval").glob("*_samples_*.jsonl"):
        kind = path.stem.removeprefix("hourllava_samples_tempcompass_").replace("multi_choice", "multi-choice")
        asked = [question for question in table.questions if question.groups["task"] == (kind,)]
        kept = [k for k, question in enumerate(asked) if question.place not in (0, 5)]
        assert [sample["doc_id"] for sample in lines_of(path)] == kept
        assert [sample["target"] for sample in lines_of(path)] == [asked[k].gold for k in kept]
    choices = rows_of(folder / "vlmevalkit" / "owner_name_TempCompass_MCQ.tsv")
    assert [int(row["index"]) for row in choices] == [1, 2, 3, 4, 5, 6]  # of 4 of multiple choice and 3 of captions
    assert choices[-1]["question"] == "Which sentence is better?"
    assert ast.literal_eval(choices[-1]["candidates"]) == ["Sentence A: It is slow.", "Sentence B: It is fast."]
    (caption,) = rows_of(folder / "vlmevalkit" / "owner_name_TempCompass_Captioning.tsv")
    assert (caption["index"], caption["mc_answer"]) == ("0", "B. emptying")


def test_tables_of_vlmevalkit(tmp_path, tables):
    answers, folder, _ = export(tmp_path / "mme", tables("video-mme"), "--form", "vlmevalkit")
    rows = rows_of(folder / "vlmevalkit" / "owner_name_Video-MME.tsv")
    assert [row["prediction"] for row in rows] == [answer.output for answer in answers]
    first = {"index": "0", "video": "AAAAAAAAAA1", "duration": "short", "question": "Who is shown first?"}
    assert first.items() <= rows[0].items()
    assert ast.literal_eval(rows[0]["candidates"]) == ["A. Ann.", "B. Anna.", "C. Nobody.", "D. A dog."]
    assert [row["answer"] for row in rows] == [question.gold for question in tables("video-mme").questions]
    _, folder, _ = export(tmp_path / "lvb", tables("longvideobench"), "--form", "vlmevalkit")
    rows = rows_of(folder / "vlmevalkit" / "owner_name_LongVideoBench.tsv")
    assert [(row["correct_choice"], row["duration_group"]) for row in rows][:2] == [("1", "15"), ("4", "3600")]
    _, folder, _ = export(tmp_path / "mlvu", tables("mlvu"), "--form", "vlmevalkit")
    rows = rows_of(folder / "vlmevalkit" / "owner_name_MLVU_MCQ.tsv")
    assert rows[0]["answer"] in ast.literal_eval(rows[0]["candidates"])
    assert rows[0]["question"] == "What does hand 0 do?"


def test_files_of_the_benchmarks_own_scripts(tmp_path, tables):
    def submitted(name, file):
        answers, folder, _ = export(tmp_path / name, tables(name), "--form", "submission")
        return answers, json.loads((folder / "submission" / file).read_text())

    answers, videos = submitted("video-mme", "video-mme.json")
    assert [video["video_id"] for video in videos] == ["901", "902", "903", "904"]
    assert videos[0].keys() == {"video_id", "duration", "domain", "sub_category", "questions"}
    told = [question["response"] for video in videos for question in video["questions"]]
    assert sorted(told) == sorted(answer.output for answer in answers)
    _, letters = submitted("lvbench", "lvbench.json")
    assert letters == {"901": "B", "902": "C", "904": "A"}  # 903 and 905 have no letter
    _, texts = submitted("longvideobench", "longvideobench.json")
    assert texts["LVBvideo001_0"] == "B"
    _, options = submitted("mlvu", "mlvu.json")
    assert options[0] == {"question_id": "needle/needle_900/1", "question_type": "needle", "option": "B"}
    _, indices = submitted("egoschema", "egoschema.json")
    assert list(indices.values())[:2] == [1, 2]
    assert all(0 <= index < 5 for index in indices.values())
    _, compass = submitted("tempcompass", "yes_no.json")
    assert compass["1000000002"]["speed"][0].keys() == {"question", "answer", "prediction"}


def test_forms_that_a_benchmark_lacks_are_said(tmp_path, tables):
    _, folder, said = export(tmp_path, tables("hourvideo"))
    assert "HourVideo has no form vlmevalkit that is known here" in said
    assert "HourVideo has no form submission that is known here" in said
    assert [path.name for path in folder.iterdir()] == ["lmms-eval"]
    ended = run_here("eval", "export", tmp_path / "run", "--form", "vlmevalkit")
    assert (ended.code, error_line(ended)) == (2, "HourVideo has none of the forms vlmevalkit; use another --form")
    ended = run_here("eval", "export", tmp_path / "run", "--form", "excel")
    assert (ended.code, "--form is 'excel'; use one of: all, lmms-eval" in ended.stderr) == (2, True)
    assert run_here("eval", "export", tmp_path).code == 6
