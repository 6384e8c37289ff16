"""Whole runs against the test server, and with MarathonWorld's truth in this process."""

import json
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest

from conftest import tiny_checkpoint
from hourllava.data.records.check import CheckReport, check_records
from hourllava.data.records.loading import LoadReport, iterate_questions
from hourllava.data.records.models import QuestionRow
from hourllava.errors import ConfigError, DataError, PartlyDoneError
from hourllava.synthesis.job import Cast
from hourllava.synthesis.prompting import read_package_text
from hourllava.synthesis.stage import StopRun
from synthesis.model_server import CONTENT, TRANSPORT, ModelServer
from synthesis.runs import FAST, MODEL, final_files, synthesise
from synthesis.scoring import event_scores, evidence_scores, fact_scores, filter_scores, rows_of

NOWHERE = "http://127.0.0.1:9/v1"
"""For runs that need not ask."""
FEW = {"questions": {"per_task": 1, "tasks": ["Object Attribute", "Temporal Order", "Overall Summarization"]}}
"""Settings with few questions, where any will do."""


@pytest.fixture(scope="module")
def clean(world, tmp_path_factory):
    """A data set of few questions without faults, and what the server counted."""
    folder, scripts = world
    out = tmp_path_factory.mktemp("clean") / "data"
    with ModelServer(scripts) as server:
        ended = synthesise(folder, out, server.address, settings=FAST | FEW, form="videomarathon")
        assert ended.error is None, ended.error
        return out, server.counts


def questions_of(out):
    return [QuestionRow(**row) for row in rows_of(out / "jsons" / "questions.jsonl")]


def errors_of(out):
    return [row for path in (out / "stages").glob("*.jsonl") for row in rows_of(path) if row["status"] == "error"]


# ------------------------------------------------------------------------------------------------ what is made


def test_on_marathonworld_everything_is_right(world, offline):
    folder, (out, ended) = world.folder, offline
    assert ended.error is None
    captions = rows_of(out / "jsons" / "captions.jsonl")
    assert event_scores(captions, folder)["F1 within 1 s"] == 1
    facts = fact_scores(captions, folder)
    assert set(facts) == {"temporality", "spatiality", "object", "action", "scene"}
    assert all(precision > 0.95 and recall == 1 for precision, recall, _ in facts.values())
    found = filter_scores(out, folder)
    assert found["written"] > 60
    assert found["wrong before"] == 0
    assert evidence_scores(out, folder)["enough to answer"] > 0.95
    assert "no model has verified them (--verifier)" in ended.lines


def test_records_are_read_back_equal(clean):
    out, _ = clean
    ours = questions_of(out)
    assert len(ours) > 5
    report = LoadReport()
    published = list(iterate_questions(out / "jsons" / "videomarathon.parquet", report))
    assert not report.problems
    table = pq.read_table(out / "jsons" / "videomarathon.parquet")
    assert table.column_names == ["id", "video", "URL", "data_source", "question_type", "question", "answer"]
    for line in table.to_pylist():  # options are lines of the question, and the answer is a letter
        assert line["question_type"].endswith(("/oe", "/mc"))
        assert ("\nD. " in line["question"]) == line["question_type"].endswith("/mc") == (line["answer"] in "ABCD")
    shared = ("question_id", "video", "data_source", "format", "question", "answer", "options", "answer_index", "task")
    for mine, theirs in zip(ours, published, strict=True):
        assert {name: getattr(mine, name) for name in shared} == {name: getattr(theirs, name) for name in shared}
    for row in rows_of_training(out):
        assert row["conversations"][0]["value"].startswith("<image>\n")
    trained = list(iterate_questions(out / "jsons" / "videomarathon.json", LoadReport()))
    assert [(row.answer, row.evidence) for row in trained] == [(row.answer, row.evidence) for row in ours]


def rows_of_training(out):
    return json.loads((out / "jsons" / "videomarathon.json").read_text())


def test_the_records_have_no_problem(clean, world):
    out, _ = clean
    assert not list(check_records(out / "jsons" / "videomarathon.json", CheckReport(), media=world[0]))


def test_every_answered_request_was_sent_once(clean):
    _, counts = clean
    assert max(counts.answered.values()) == 1


def test_every_question_has_its_origin(clean):
    out, _ = clean
    makers = json.loads((out / "stages" / "makers.json").read_text())
    keys = {row["key"]: row for path in (out / "stages").glob("*.jsonl") for row in rows_of(path)}
    assert {row["made_by"] for row in keys.values()} <= makers.keys()
    provenance = {row["question_id"]: row for row in rows_of(out / "jsons" / "provenance.jsonl")}
    for question in questions_of(out):
        origin = provenance[question.question_id]
        if question.task != "Overall Summarization":
            assert keys[origin["questions_row"]]["status"] == "ok"
            assert makers[keys[origin["checks_row"]]["made_by"]]["model"] == "other-model"
            assert origin["clips"]


def test_the_card_tells_models_checks_and_letters(clean):
    out, _ = clean
    text = (out / "card.md").read_text()
    for word in (MODEL, "other-model", "Object Attribute", "| verifier | 0 |", "Right letters"):
        assert word in text
    data = json.loads((out / "card.json").read_text())
    assert data["tasks"]["all"]["written"] == len(questions_of(out)) + len(rows_of(out / "jsons" / "dropped.jsonl"))


# --------------------------------------------------------------------------------------------- again and again


def test_a_second_run_asks_nothing_and_leaves_the_same_bytes(clean, world):
    out, _ = clean
    before = final_files(out)
    assert synthesise(world.folder, out, NOWHERE, settings=FAST | FEW, form="videomarathon").error is None
    assert "no connection" not in (out / "requests.jsonl").read_text()
    changed = [name for name, digest in final_files(out).items() if before[name] != digest]
    assert changed in ([], ["synth.json"])  # it names the server, which has another port


def test_a_changed_prompt_makes_anew_what_depends_on_it_and_nothing_else(clean, world, tmp_path):
    out = shutil.copytree(clean[0], tmp_path / "data")
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    text = read_package_text("open_questions.txt").replace("Rules:", "The rules:")
    (prompts / "open_questions.txt").write_text(text)
    with ModelServer(world[1]) as server:
        synthesise(world[0], out, server.address, settings=FAST | FEW, form="videomarathon", prompts=prompts)
    assert set(server.counts.calls) == {"open_questions"}
    log = (out / "requests.jsonl").read_bytes()  # and back: what was made before is still there
    assert synthesise(world.folder, out, NOWHERE, settings=FAST | FEW, form="videomarathon").error is None
    assert (out / "requests.jsonl").read_bytes() == log


@pytest.mark.slow
def test_stages_can_be_made_one_by_one(world, tmp_path):
    folder, scripts = world
    calls = []
    with ModelServer(scripts) as server:
        for until in ("clips", "captions", "events", "event_captions", "summaries", "questions", "records"):
            done = synthesise(
                folder, tmp_path / "data", server.address, settings=FAST | FEW, until=until, verifier=False
            )
            assert done.error is None
            calls.append(server.counts.calls.total())
    assert calls == [*sorted(set(calls)), calls[-1]]  # records ask nothing, and all others do


def test_a_missing_model_is_said_when_it_is_needed(world, offline, tmp_path):
    out = shutil.copytree(offline.out, tmp_path / "data")
    before = (out / "stages" / "captions.jsonl").read_bytes()
    done = synthesise(world.folder, out, cast=Cast(captioner="world"), settings=FEW)
    assert isinstance(done.error, ConfigError)
    assert "--writer" in str(done.error)
    assert (out / "stages" / "captions.jsonl").read_bytes() == before


def test_a_writer_does_not_verify_itself(world, tmp_path):
    cast = Cast("world", "m@http://a/v1", "m@http://b/v1")
    assert isinstance(synthesise(world[0], tmp_path / "data", cast=cast).error, ConfigError)


def test_a_foreign_folder_is_refused(world, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear")
    assert isinstance(synthesise(world[0], tmp_path).error, ConfigError)


@pytest.mark.slow
def test_hourllava_captions_clips(world, tmp_path):
    """Any model of ours will do: what it says of six aspects becomes the caption."""
    cast = Cast(captioner=f"hourllava:{tiny_checkpoint()}")
    done = synthesise(world[0], tmp_path / "data", cast=cast, until="captions", limit=1)
    assert done.error is None
    rows = rows_of(tmp_path / "data" / "stages" / "captions.jsonl")
    assert len(rows) == 3
    assert set(rows[0]["value"]) == {"temporality", "spatiality", "object", "action", "scene", "summary"}


@pytest.mark.slow
def test_clips_may_know_the_summary_before(world, tmp_path):
    folder, scripts = world
    settings = FAST | FEW | {"clips": {"recurrent": True}}
    with ModelServer(scripts) as server:
        done = synthesise(folder, tmp_path / "data", server.address, settings=settings, until="captions")
    assert done.error is None
    assert server.counts.calls["clip_caption"] == len(rows_of(tmp_path / "data" / "stages" / "captions.jsonl"))


@pytest.mark.slow
def test_clips_are_sent_as_videos_too(world, tmp_path):
    folder, scripts = world
    settings = FAST | {"server": {"media": "video"}}
    with ModelServer(scripts) as server:
        done = synthesise(folder, tmp_path / "data", server.address, settings=settings, until="captions", limit=1)
    assert done.error is None
    rows = rows_of(tmp_path / "data" / "stages" / "captions.jsonl")
    assert rows[0]["value"]["scene"].startswith("It takes place in")


# ------------------------------------------------------------------------------------------------------- faults


def test_faults_that_pass_leave_the_same_bytes(clean, world, tmp_path):
    """Each fault of a server, and each answer that a second try mends."""
    passing = (*TRANSPORT, *(fault for fault in CONTENT if fault not in ("refusal", "filter")))
    settings = FAST | FEW | {"server": {"timeout_seconds": 1.0}, "retries": {**FAST["retries"], "content": 5}}
    with ModelServer(world[1], faults=dict.fromkeys(passing, 0.03), seed=1) as server:
        done = synthesise(world[0], tmp_path / "data", server.address, settings=settings, form="videomarathon")
    assert done.error is None, done.error
    assert server.counts.faults.total() > 10
    ours, theirs = final_files(tmp_path / "data"), final_files(clean[0])
    assert [name for name in theirs if ours[name] != theirs[name]] == ["synth.json"]


@pytest.mark.slow
def test_what_is_given_up_is_an_error_row_and_costs_nothing_else(clean, world, tmp_path):
    with ModelServer(world[1], faults={"refusal": 0.15, "not json": 0.15}, seed=2) as server:
        done = synthesise(world[0], tmp_path / "data", server.address, settings=FAST | FEW)
    assert isinstance(done.error, PartlyDoneError)
    failed = Counter(row["kind"] for row in errors_of(tmp_path / "data"))
    assert failed["refusal"] > 0
    assert str(failed.total()) in str(done.error)
    with ModelServer(world[1]) as server:
        done = synthesise(world[0], tmp_path / "data", server.address, settings=FAST | FEW)
        assert isinstance(done.error, PartlyDoneError)
        assert not server.counts.calls
        done = synthesise(world[0], tmp_path / "data", server.address, settings=FAST | FEW, retry_errors=True)
    assert done.error is None  # rows of items that nobody asks for any more may stay
    for name in ("questions.jsonl", "captions.jsonl", "videomarathon.json"):
        assert (tmp_path / "data/jsons" / name).read_bytes() == (clean[0] / "jsons" / name).read_bytes()


@pytest.mark.slow
def test_a_server_that_goes_down_ends_the_run_and_another_one_goes_on(clean, world, tmp_path):
    settings = FAST | FEW | {"retries": {**FAST["retries"], "transport": 1, "stop_after": 3}}
    with ModelServer(world[1]) as server:
        server.is_down = True
        done = synthesise(world[0], tmp_path / "data", server.address, settings=settings)
        assert isinstance(done.error, StopRun)
        assert not errors_of(tmp_path / "data")
        server.is_down = False
        done = synthesise(world[0], tmp_path / "data", server.address, settings=settings)
    assert done.error is None
    assert (tmp_path / "data/jsons/questions.jsonl").read_bytes() == (clean[0] / "jsons/questions.jsonl").read_bytes()


@pytest.mark.slow
def test_a_budget_ends_the_run_and_a_larger_one_goes_on(clean, world, tmp_path):
    with ModelServer(world[1]) as server:
        done = synthesise(world[0], tmp_path / "data", server.address, settings=FAST | FEW, max_tokens=4000)
        assert isinstance(done.error, StopRun)
        used = server.counts.prompt_tokens + server.counts.completion_tokens
        assert 4000 <= used < 4000 + 40 * 1500  # those in flight are paid for
        done = synthesise(world[0], tmp_path / "data", server.address, settings=FAST | FEW, max_tokens=10**6)
    assert done.error is None
    assert (tmp_path / "data/jsons/questions.jsonl").read_bytes() == (clean[0] / "jsons/questions.jsonl").read_bytes()


def test_a_video_that_cannot_be_read_is_one_error(clean, world, tmp_path):
    out, broken = shutil.copytree(clean[0], tmp_path / "data"), tmp_path / "broken"
    broken.mkdir()
    (broken / "a.mp4").write_bytes(b"no video")
    done = synthesise([world.folder, broken], out, NOWHERE, settings=FAST | FEW)
    assert isinstance(done.error, PartlyDoneError)
    (row,) = errors_of(out)
    assert (row["id"], row["kind"]) == ("broken/a.mp4", "video cannot be read")
    assert questions_of(out) == questions_of(clean[0])


@pytest.mark.slow
def test_nothing_made_is_an_error(world, tmp_path):
    with ModelServer(world[1], faults={"refusal": 1.0}) as server:
        done = synthesise(world[0], tmp_path / "data", server.address, settings=FAST | FEW)
    assert isinstance(done.error, DataError)
    assert "no question is left" in str(done.error)


def test_wrong_answers_are_found_by_the_verifier(clean, world, tmp_path):
    out = shutil.copytree(clean[0], tmp_path / "data")
    tasks = {"questions": {"per_task": 2, "tasks": ["Object Attribute", "Spatial Perception", "Scene Transition"]}}
    with ModelServer(world.scripts, faults={"wrong answer": 0.3}, seed=5) as server:
        synthesise(world.folder, out, server.address, settings=tasks | {"checks": {"guessing": False}})
    assert not server.counts.calls["clip_caption"]
    found = filter_scores(out, world.folder)
    assert found["wrong before"] > 0.15
    assert found["wrong after"] <= 0.03
    assert found["right lost"] <= 0.10


@pytest.mark.slow
def test_frames_at_wrong_times_give_wrong_captions(world, tmp_path, monkeypatch):
    """The test server is honest: it describes what it sees, not what it should see."""
    from hourllava.synthesis import frames

    right = frames.read_clips

    def shifted(planned, clips, settings, budget):
        pictures = [found for _, found in right(planned, clips, settings, budget)]
        return zip(clips, pictures[::-1])

    monkeypatch.setattr(frames, "read_clips", shifted)
    with ModelServer(world[1]) as server:
        synthesise(world[0], tmp_path / "data", server.address, settings=FAST | FEW, verifier=False)
    facts = fact_scores(rows_of(tmp_path / "data" / "jsons" / "captions.jsonl"), world[0])
    assert facts["temporality"][0] < 0.7
