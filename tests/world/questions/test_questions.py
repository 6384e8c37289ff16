"""Questions: all tasks and formats; each has one right answer, and an independent solver finds it."""

import json
import re
from collections import Counter
from itertools import pairwise

import pytest

from hourllava.data.records.taxonomy import TASKS
from hourllava.world.generate import DIFFICULTIES, generate_script
from hourllava.world.questions import BUILDERS, FORMATS, Question, generate_questions, needle_question
from hourllava.world.questions.reading import PHRASINGS, read
from hourllava.world.questions.solver import Solver
from hourllava.world.questions.stills import PICTURE_PHRASINGS
from hourllava.world.script import Script, screen_log
from hourllava.world.vocabulary import SPLITS, split_pairs

DURATIONS_SECONDS = (5, 12, 40, 75, 180, 400, 900, 1803, 3600, 20000, 86400)


def solve_videos(seeds: range, per_task: int) -> tuple[int, list[str]]:
    """The number of questions, and a line for each that the solver answers differently."""
    asked, wrong = 0, []
    for seed in seeds:
        duration = DURATIONS_SECONDS[seed % len(DURATIONS_SECONDS)]
        density = list(DIFFICULTIES.values())[seed // 2 % len(DIFFICULTIES)]
        script = generate_script(seed, duration, split=SPLITS[seed % 2], density=density)
        solver = Solver(screen_log(script), duration)
        for question in generate_questions(script, per_task=per_task):
            asked += 1
            answer = solver.solve(question.question, question.options)
            if answer != question.answer:
                wrong.append(
                    f"seed {seed}: {question.question} {question.options}: {question.answer!r}, not {answer!r}"
                )
    return asked, wrong


def test_the_solver_agrees_on_hundreds_of_questions():
    asked, wrong = solve_videos(range(13), per_task=1)
    assert asked >= 400
    assert not wrong, wrong[:5]


@pytest.mark.slow
def test_the_solver_agrees_on_ten_thousand_questions():
    asked, wrong = solve_videos(range(1000, 1110), per_task=3)
    assert asked >= 10_000
    assert not wrong, wrong[:5]


def test_the_solver_looks_at_the_screen_and_not_at_the_answer():
    script = generate_script(1, 1200)
    questions = generate_questions(script, per_task=3, tasks=("Object Attribute", "Spatial Perception"))
    repainted = [
        line.model_copy(update={"colour": "red", "shape": "ball", "place": "centre" if line.place else None})
        for line in screen_log(script)
    ]
    solver = Solver(repainted, 1200)
    place = [q for q in questions if q.template == "place_at_start" and q.format == "open"]
    colour = [q for q in questions if q.template == "letter_colour" and q.format == "open"]
    assert place
    assert colour
    assert {solver.solve(q.question, ()) for q in place} == {"centre"}
    assert {solver.solve(q.question, ()) for q in colour} == {"red"}


@pytest.fixture(scope="module")
def hour() -> tuple[Script, list[Question]]:
    script = generate_script(5, 3600, split="test")
    return script, generate_questions(script, per_task=3)


def test_an_hour_serves_every_task_in_both_formats(hour):
    counts = Counter((q.task, q.format) for q in hour[1])
    assert set(counts) == {(task, form) for task in BUILDERS for form in FORMATS}
    assert set(BUILDERS) == set(TASKS)
    assert len(TASKS) == 22


def test_twelve_minutes_serve_every_task_too():
    questions = generate_questions(generate_script(5, 720))
    assert len({(q.task, q.format) for q in questions}) == 44


def test_dense_minutes_serve_every_task():
    counts: Counter[str] = Counter()
    for seed in range(40):
        script = generate_script(seed, 45 + 5 * seed, density=DIFFICULTIES["dense"])
        assert len(script.events) >= script.duration_seconds / 23
        counts.update(question.task for question in generate_questions(script))
    assert set(counts) == set(BUILDERS)
    assert min(counts.values()) >= 20
    assert sum(counts.values()) > 0.9 * 40 * 44


def test_evidence_lies_in_the_video_and_options_hold_the_answer(hour):
    script, questions = hour
    for q in questions:
        assert q.evidence
        assert all(0 <= start < end <= script.duration_seconds for start, end in q.evidence)
        if q.format == "choice":
            assert len(set(q.options)) == 4
            assert q.options[q.answer_index] == q.answer
        else:
            assert q.options == ()
            assert q.answer_index is None
        assert "{" not in q.question
        assert q.question[0].isupper() or q.question[0].isdigit()


def test_positions_are_balanced():
    counts: Counter[int | None] = Counter()
    for seed in range(30):
        counts.update(q.answer_index for q in generate_questions(generate_script(seed, 600), per_task=2) if q.options)
    total = sum(counts.values())
    assert total > 1000
    assert all(abs(count / total - 0.25) < 0.05 for count in counts.values())


def test_yes_and_no_are_balanced():
    answers: Counter[str] = Counter()
    for seed in range(60):
        questions = generate_questions(
            generate_script(seed, 300), per_task=4, tasks=("Object Existence",), formats=("open",)
        )
        answers.update(q.answer for q in questions)
    assert set(answers) == {"yes", "no"}
    assert abs(answers["yes"] / answers.total() - 0.5) < 0.12


def test_questions_are_reproducible_and_not_repeated(hour):
    script, questions = hour
    assert generate_questions(script, per_task=3) == questions
    keys = [(q.template, q.question, q.options, q.format) for q in questions]
    assert len(set(keys)) == len(keys)


def slots_of(phrasing: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", phrasing))


def words_of(phrasing: str) -> list[str]:
    """The words in lower case, without punctuation and slots."""
    return re.findall(r"[a-z0-9]+", re.sub(r"\{\w+\}", " ", phrasing.lower()))


def shape_of(phrasing: str) -> tuple[str, ...]:
    """Words and slots: phrasings of one shape differ only in capitals and punctuation."""
    return tuple(re.findall(r"[a-z0-9]+|\{\w+\}", phrasing.lower()))


ALL_PHRASINGS = [*PHRASINGS.items(), *PICTURE_PHRASINGS.items()]


def test_no_test_phrasing_is_trained_on():
    tested = {shape_of(phrasing) for _, both in ALL_PHRASINGS for phrasing in both["test"]}
    for template, both in ALL_PHRASINGS:
        trained = [shape_of(phrasing) for phrasing in both["train"]]
        assert not tested.intersection(trained), template
        assert len(set(trained)) == len(trained), template


def test_test_phrasings_are_made_of_words_that_training_uses():
    for template, both in ALL_PHRASINGS:
        uses = Counter(word for phrasing in both["train"] for word in set(words_of(phrasing)))
        rare = {word for phrasing in both["test"] for word in words_of(phrasing) if uses[word] < 2}
        assert not rare, (template, rare)


def test_test_phrasings_open_as_some_of_training_do():
    for template, both in ALL_PHRASINGS:
        openings = {shape_of(phrasing)[:2] for phrasing in both["train"]}
        assert openings.issuperset(shape_of(phrasing)[:2] for phrasing in both["test"]), template


def test_phrasings_are_many_and_have_the_slots_of_their_template():
    for template, both in ALL_PHRASINGS:
        assert len(both["train"]) >= 14, template
        assert len({tuple(slots_of(phrasing)) for phrasings in both.values() for phrasing in phrasings}) == 1, template
    assert all(len(both["test"]) >= 3 for both in PHRASINGS.values())


def test_questions_use_the_phrasings_of_their_split():
    for split in SPLITS:
        for seed in range(3):
            for q in generate_questions(generate_script(seed, 900, split=split)):
                assert read(q.question)[:2] == (q.template, split)


def test_splits_share_no_combination_but_every_colour_and_shape():
    train, test = split_pairs("train"), split_pairs("test")
    assert not set(train) & set(test)
    assert len(train) + len(test) == 64
    for k in (0, 1):
        assert {pair[k] for pair in train} == {pair[k] for pair in test}
    for split, pairs in (("train", train), ("test", test)):
        for member in generate_script(9, 1800, split=split).cast:
            assert (member.colour, member.shape) in pairs


def test_very_short_videos_are_asked_only_about_what_one_frame_a_second_shows():
    for seed in range(20):
        script = generate_script(seed, 8)
        for q in generate_questions(script):
            assert q.task in {
                "Temporal Perception", "Temporal Reasoning", "Temporal Gap Estimation", "Temporal Order",
                "Object Attribute",
            }  # fmt: skip


def test_needle_question_asks_for_the_colour_of_the_card():
    script = generate_script(3, 120)
    for needle in script.needles:
        for form in FORMATS:
            question = needle_question(script, needle, form)
            assert question.answer == needle.colour
            assert question.evidence == ((needle.start_seconds, needle.end_seconds),)
            assert needle.glyph in question.question


def test_questions_survive_json(hour):
    for q in hour[1]:
        assert Question.model_validate(json.loads(q.model_dump_json())) == q


def test_screen_log_is_in_order_of_time(hour):
    log = screen_log(hour[0])
    assert all(a.start_seconds <= b.start_seconds for a, b in pairwise(log))
