"""Scores: what a rule makes of raw answers, both denominators, judges, two runs compared."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from evaluation.benchmarks.answers import FOUR, answered, asked, summary_of, write_run
from evaluation.benchmarks.judges import judge_server
from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks import judge as judge_module
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.outcome import score_run
from hourllava.evaluation.benchmarks.scoring import compare_runs, score_answers, scores_of

MME = find_benchmark("video-mme")
LVB = find_benchmark("longvideobench")


def scores_in(run, **options):
    lines = list(score_run(run, **options))
    return json.loads((run / "scores.json").read_text()), lines


OUTPUTS = ["A", "B", "The answer is (A) because D is wrong", "no letter here", "", "E"]


@pytest.mark.parametrize(
    ("rule", "right", "how"),
    [
        ("lmms-eval-0.7.2", [True, False, False, False, False, False], ["unparsed"] * 3),
        ("lmms-eval-0.3", [True, False, True, False, False, False], ["unparsed"] * 3),
        ("official", [True, False, True, None, None, None], ["left out"] * 3),
        ("likelihood", [True, False, False, False, False, False], ["read", "unparsed", "read"]),
    ],
)
def test_one_run_by_several_rules(rule, right, how):
    answers = [answered(asked(k), output) for k, output in enumerate(OUTPUTS)]
    scored = score_answers(answers, MME.rules[rule])
    assert [one.right for one in scored] == right
    assert [one.how for one in scored][3:] == how


def test_an_option_is_drawn_in_the_order_of_the_table():
    questions = [asked(k, "ABCD"[k % 4]) for k in range(40)]
    answers = [answered(question, "?" if k % 2 else "B") for k, question in enumerate(questions)]
    scored = score_answers(answers, LVB.rules["official"])
    chance = random.Random(0)
    assert [one.answer for one in scored if one.how == "drawn"] == [chance.choice("ABCD") for _ in range(20)]
    assert all(one.right == (one.answer == one.question.gold) for one in scored)
    shuffled = random.Random(3).sample(answers, len(answers))
    assert score_answers(shuffled, LVB.rules["official"]) == scored
    assert score_answers(answers, LVB.rules["official"], seed=1) != scored


def test_answers_that_are_not_public_are_read_and_not_scored():
    (one,) = score_answers([answered(asked(0, None), "B")], MME.rules["lmms-eval-0.3"])
    assert (one.answer, one.right, one.how) == ("B", None, "no gold")


def test_no_answer_is_right_if_the_published_one_is_no_option():
    for output in ("A", "nothing"):
        (one,) = score_answers([answered(asked(0, "a cat"), output)], MME.rules["lmms-eval-0.3"])
        assert (one.right, one.how) == (False, "no right option")


def test_a_letter_is_no_option_text():
    """An option's text that begins with another's does not change what is right."""
    question = asked(
        0, "B", options=("Ann", "Anna", "Nobody", "A dog"), lines=("A. Ann", "B. Anna", "C. Nobody", "D. A dog")
    )
    for output, right in (("B", True), ("B. Anna", True), ("A. Ann", False), ("A", False), ("D. A dog", False)):
        (one,) = score_answers([answered(question, output)], MME.rules["lmms-eval-0.7.2"])
        assert one.right is right, output


letters = st.sampled_from(["A", "B", "C", "D", "none", ""])


@examples(30)
@given(
    st.lists(st.tuples(letters, st.sampled_from("ABCD"), st.integers(0, 3)), min_size=1, max_size=12), st.integers(0, 5)
)
def test_both_denominators(rows, num_missing):
    """Scored questions and all questions; what is not scored is counted by its reason."""
    questions = [
        asked(k, gold, groups={"duration": (("short", "long")[group % 2],)}) for k, (_, gold, group) in enumerate(rows)
    ]
    missing = [asked(100 + k, "A", groups={"duration": ("long",)}) for k in range(num_missing)]
    answers = [answered(question, row[0]) for question, row in zip(questions, rows)]
    for rule in ("lmms-eval-0.3", "official"):
        scored = score_answers(answers, MME.rules[rule])
        scores = scores_of(MME, scored, summary_of([*questions, *missing]))
        counts, cell = scores["counts"], scores["axes"]["all"]["all"]
        assert counts["in_files"] == len(rows) + num_missing == cell["total"]
        assert counts["answered"] + counts["not_answered"] == counts["in_files"]
        assert counts["scored"] + counts["how"].get("left out", 0) == counts["answered"]
        assert sum(counts["how"].values()) == counts["answered"]
        num_right = sum(row[0] == row[1] for row in rows)
        assert cell["right"] == num_right
        assert cell["of_all"] == num_right / counts["in_files"]
        assert cell["accuracy"] == (num_right / counts["scored"] if counts["scored"] else None)
        groups = scores["axes"]["duration"].values()
        assert sum(group["n"] for group in groups) == cell["n"]
        assert sum(group["total"] for group in groups) == cell["total"]


def test_a_question_of_several_abilities_counts_in_each():
    benchmark = find_benchmark("lvbench")
    questions = [asked(k, "A", groups={"ability": (("x", "y") if k == 0 else ("y",))}) for k in range(3)]
    scored = score_answers([answered(question, "A") for question in questions], benchmark.rules["official"])
    cells = scores_of(benchmark, scored, summary_of(questions))["axes"]["ability"]
    assert {name: (cell["n"], cell["total"]) for name, cell in cells.items()} == {"x": (1, 1), "y": (3, 3)}


def test_mlvus_headline_is_the_mean_over_tasks():
    benchmark = find_benchmark("mlvu")
    questions = [asked(k, "A", groups={"task": ("count" if k < 3 else "ego",)}) for k in range(4)]
    outputs = ["A)", "A)", "A)", "B)"]
    scored = score_answers([answered(q, output) for q, output in zip(questions, outputs)], benchmark.rules["official"])
    scores = scores_of(benchmark, scored, summary_of(questions))
    assert scores["headline"]["accuracy"] == scores["mean"]["accuracy"] == 0.5
    assert scores["axes"]["all"]["all"]["accuracy"] == 0.75
    assert scores["mean"]["groups"] == 2


def test_evidence_beside_chance():
    moments = [((0.5, 1.5),), ((8.0, 9.0),), ((20.0, 21.0), (0.0, 1.0)), ()]
    questions = [asked(k, moments=some) for k, some in enumerate(moments)]
    scored = score_answers([answered(question, "A") for question in questions], MME.rules["official"])
    evidence = scores_of(MME, scored, summary_of(questions))["evidence"]
    assert (evidence["n"], evidence["right"], evidence["by_chance"]) == (3, 2, pytest.approx(0.2))


class TestJudge:
    """TempCompass: what no rule reads, and captions."""

    @pytest.fixture(autouse=True)
    def no_pauses(self, monkeypatch):
        monkeypatch.setattr(judge_module, "_PAUSES_SECONDS", (0.0,) * 2)

    @pytest.fixture
    def run(self, tmp_path):
        caption = asked(
            3, "B. x", kind="captioning", options=(), gold_index=None, judge_question="What?", judge_answer="B. x",
            groups={"task": ("captioning",)},
        )  # fmt: skip
        answers = [
            answered(asked(k, "A. a cup", gold_index=0, groups={"task": ("multi-choice",)}), output)
            for k, output in enumerate(("A", "a cup", "neither"))
        ]
        return write_run(tmp_path / "run", "tempcompass", [*answers, answered(caption, "A thing is x.")])

    def test_without_a_judge_captions_are_left_out_and_said(self, run):
        scores, _ = scores_in(run)
        assert scores["counts"]["how"] == {"read": 1, "unparsed": 2, "no judge": 1}
        assert scores["axes"]["task"]["captioning"]["accuracy"] is None
        assert scores["axes"]["task"]["multi-choice"]["accuracy"] == pytest.approx(1 / 3)
        table = (run / "table.md").read_text()
        assert "- 1 answers are not scored, because they need a judge (--judge)" in table
        assert "- 2 answers could not be read and count as wrong" in table

    @staticmethod
    def reply(prompt):
        if "Video Description:A thing is x." in prompt:
            return "Answer: B. x"
        return "Correct" if prompt.endswith("Model Prediction: a cup") else "Incorrect"

    def test_a_judge_scores_the_rest_once(self, run):
        with judge_server() as server:
            server.reply = self.reply
            for _ in range(2):
                scores, _ = scores_in(run, judge_url=server.url, judge_model="a-judge")
                assert scores["judge"] == "a-judge"
                assert scores["counts"]["how"] == {"read": 1, "judged": 3}
                assert scores["axes"]["all"]["all"]["right"] == 3
            assert len(server.requests) == 3
        assert "| judge | a-judge |" in (run / "table.md").read_text()

    def test_a_judge_that_fails_is_said(self, run):
        with judge_server() as server:
            server.reply = lambda prompt: 500 if "Video Description" in prompt else "Correct"
            scores, lines = scores_in(run, judge_url=server.url)
        assert scores["counts"]["how"] == {"read": 1, "judged": 2, "not judged": 1}
        assert lines[-1].startswith("the judge failed on 1 answers, which are not scored: HTTP Error 500")

    def test_a_name_needs_an_address(self, run):
        with pytest.raises(ConfigError, match="--judge-model names a judge without an address"):
            scores_in(run, judge_model="x")


class TestCompared:
    """Two runs, question by question."""

    def runs(self, tmp_path, ours="AAAB", theirs="ABBB", **fields):
        found = []
        for name, outputs in (("ours", ours), ("theirs", theirs)):
            questions = [asked(k, "A", groups={"duration": ("long" if k else "short",)}) for k in range(len(outputs))]
            answers = [answered(question, output) for question, output in zip(questions, outputs) if output != "-"]
            found.append(write_run(tmp_path / name, "video-mme", answers, **fields))
        return found

    def test_differences(self, tmp_path):
        ours, theirs = self.runs(tmp_path, "AAAB-", "ABBBA")
        scores, _ = scores_in(ours, against=theirs)
        cell = scores["against"]["axes"]["all"]["all"]
        assert (cell["n"], cell["won"], cell["lost"], cell["difference"]) == (4, 2, 0, 0.5)
        assert scores["against"]["alone"] == 1
        table = (ours / "table.md").read_text()
        assert "## This run minus the other run" in table
        assert "1 questions are scored in only one of the runs and are left out." in table
        assert "| length: long | 3 | 2 | 0 | +66.7 (" in table

    def test_other_questions_cannot_be_compared(self, tmp_path):
        ours, theirs = self.runs(tmp_path, "A", "A")
        (theirs / "raw.jsonl").write_text((theirs / "raw.jsonl").read_text().replace("What is 0?", "What was 0?"))
        with pytest.raises(DataError, match="1 questions have the same id but other words"):
            scores_in(ours, against=theirs)
        other = write_run(tmp_path / "mlvu", "mlvu", [answered(asked(0), "A")])
        with pytest.raises(DataError, match=r"is a run of mlvu \(dev\), not of video-mme \(test\)"):
            scores_in(ours, against=other)
        scored = score_answers([answered(asked(0), "A")], MME.rules["official"])
        with pytest.raises(DataError, match="have no scored question in common"):
            compare_runs(MME, scored, [])


class TestFolder:
    """`hourllava eval score` of a run's folder."""

    def test_a_run_is_scored_by_another_rule_elsewhere(self, tmp_path):
        run = write_run(tmp_path / "run", "video-mme", [answered(asked(0), "Answer: A")])
        list(score_run(run, rule="vlmevalkit", out=tmp_path / "else"))
        assert json.loads((tmp_path / "else" / "scores.json").read_text())["rule"] == "vlmevalkit"
        assert not (run / "scores.json").exists()
        with pytest.raises(ConfigError, match="--rule is 'x'; Video-MME has: "):
            list(score_run(run, rule="x"))

    def test_no_answers_and_no_run(self, tmp_path):
        run = write_run(tmp_path / "run", "video-mme", [])
        with pytest.raises(DataError, match="holds no answers yet; let hourllava eval video-mme run"):
            list(score_run(run))
        with pytest.raises(DataError, match="is missing, damaged or of another version"):
            list(score_run(tmp_path))

    def test_an_unfinished_line_is_skipped_and_a_damaged_one_refused(self, tmp_path):
        run = write_run(tmp_path / "run", "video-mme", [answered(asked(0), "A")])
        with (run / "raw.jsonl").open("a") as file:
            file.write('{"question": {"id": "hal')
        assert scores_in(run)[0]["counts"]["answered"] == 1
        with (run / "raw.jsonl").open("a") as file:
            file.write("\n")
        with pytest.raises(DataError, match="line 2 is damaged"):
            scores_in(run)

    def test_shards_are_one_run_and_an_answer_counts_once(self, tmp_path, caplog):
        run = write_run(tmp_path / "run", "video-mme", [answered(asked(k), "A") for k in range(2)])
        (run / "raw-1-of-2.jsonl").write_text(answered(asked(2), "B").model_dump_json() + "\n")
        assert scores_in(run)[0]["axes"]["all"]["all"]["right"] == 2
        assert "twice" not in caplog.text
        with (run / "raw-1-of-2.jsonl").open("a") as file:
            file.write(answered(asked(0), "B").model_dump_json() + "\n")
        assert scores_in(run)[0]["axes"]["all"]["all"]["right"] == 2
        assert "1 questions were answered twice; the first answer counts" in caplog.text


def test_likelihoods_are_kept_and_shown(tmp_path):
    answer = answered(asked(0, options=FOUR), "B", log_probabilities=(-1.0, -0.5, -3.0, -4.0))
    run = write_run(tmp_path / "run", "video-mme", [answer], protocol="likelihood")
    scores, _ = scores_in(run)
    assert scores["counts"]["how"] == {"read": 1}
    assert "| decoding | the most probable letter |" in (run / "table.md").read_text()
    assert "A 0.37, B 0.61, C 0.05, D 0.02" in (run / "page.html").read_text()
