"""`hourllava demo`: the same ten tasks for every seed, correct scores, and the README's command."""

import contextlib
import re
import shlex
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from conftest import tiny_checkpoint
from hourllava.cli.main import app
from hourllava.data.records.taxonomy import TOPICS
from hourllava.errors import ConfigError
from hourllava.evaluation import demo
from hourllava.evaluation import demo_picture as picture
from hourllava.inference.questions.answers import Answer, Choice
from hourllava.inference.questions.evidence import Span
from hourllava.world.drawing.render import render_frames
from hourllava.world.generate import generate_script
from hourllava.world.questions import generate_questions

README = Path(__file__).parents[2] / "README.md"


def questions_of(seed, minutes=60):
    return [question for _, question in demo.program_questions(generate_script(seed, minutes * 60, split="test"))]


def test_ten_tasks_of_all_topics_and_both_forms():
    questions = questions_of(5)
    assert len({question.task for question in questions}) == len(questions) == 10
    assert {question.topic for question in questions} == set(TOPICS)
    assert Counter(question.form for question in questions) == {"short": 5, "long": 5}
    assert Counter(question.format for question in questions) == {"open": 5, "choice": 5}
    cards = [
        question for question in questions if question.template.endswith("of_letter") or "colour" in question.template
    ]
    assert len(cards) == 3
    assert all(min(end - start for start, end in question.evidence) <= 3 for question in cards)


def test_every_hour_and_most_shorter_videos_serve_the_whole_program():
    assert all(len(questions_of(seed)) == 10 for seed in range(10, 13))
    assert 5 <= len(questions_of(3, minutes=1)) <= 10


@pytest.mark.parametrize("item", [item for item in demo.PROGRAM if item.format == "open"], ids=lambda item: item.task)
def test_what_guessing_gives(item):
    """`num_answers` is the number of possible answers; where it is small, all of them occur."""
    found, named = set(), set()
    for seed in range(40):
        script = generate_script(seed, 600, split="test")
        for question in generate_questions(script, per_task=20, tasks=(item.task,), formats=("open",)):
            if question.template == item.template:
                found.add(question.answer)
                named.add(question.answer in question.question)
    if item.template == "first_of_two":
        assert named == {True}
        assert item.num_answers == 2
    elif item.num_answers < 20:
        assert len(found) == item.num_answers
    else:
        assert 0.5 * item.num_answers < len(found) <= item.num_answers


class Knowing:
    """A stand-in for a model: answers the first `num_right` questions correctly and looks at the true moments."""

    def __init__(self, seed, num_right):
        questions = questions_of(seed, minutes=10)
        self.known = {question.question: question for question in questions}
        self.right = [question.question for question in questions[:num_right]]

    def watch(self, video):
        return SimpleNamespace(num_frames=600)

    def _look(self, question):
        (start, end), *_ = self.known[question].evidence
        return [Span(start, end, 0.75)]

    def choose(self, memory, question, options):
        truth = self.known[question].answer
        option = truth if question in self.right else next(option for option in options if option != truth)
        return Choice(question, option, "A", [], self._look(question))

    def stream(self, memory, question, **options):
        text = f"{self.known[question].answer.capitalize()}." if question in self.right else "\n"
        answer = Answer(question, text, self._look(question), "stop", 1, 1, 0.0, 0.0)
        return contextlib.nullcontext(SimpleNamespace(answer=answer))


@pytest.fixture
def stubbed(monkeypatch):
    """A function that replaces the model by `Knowing` and the encoder by nothing; returns a list for the output."""

    def stub(seed, num_right):
        monkeypatch.setattr(demo.HourLlava, "from_pretrained", lambda name: Knowing(seed, num_right))
        monkeypatch.setattr(demo, "encode_video", lambda script, path, progress: path.touch())
        return []

    return stub


@pytest.mark.parametrize("num_right", [pytest.param(0, marks=pytest.mark.slow), 6])
def test_the_score_is_what_was_answered_rightly(tmp_path, stubbed, num_right):
    said = stubbed(8, num_right)
    results = demo.run_demo(8, 10, tmp_path, "some/checkpoint", said.append)
    text = "\n".join(said)
    assert [result.is_right for result in results] == [True] * num_right + [False] * (10 - num_right)
    assert f"{num_right} of 10 answers are right" in text
    assert "Guessing gives 2.5 on average." in text
    assert text.count("RIGHT") == num_right
    assert ("(nothing)" in text) == (num_right < 10)
    with Image.open(tmp_path / "world-8.png") as image:
        assert image.size == (picture.WIDTH, picture.ROWS_TOP + 10 * picture.ROW + picture.FOOT)


def answered(question, evidence, is_right=True):
    return picture.Answered(question, question.answer if is_right else "something else", evidence)


def pixels_of(image):
    return np.asarray(image)


def test_the_picture_shows_what_was_looked_at_most_and_where_on_the_axis():
    script = generate_script(8, 600, split="test")
    questions = questions_of(8, minutes=10)[:3]
    spans = [[Span(60, 90, 0.5), Span(400, 401, 0.1)], [Span(590, 600, 0.9)], []]
    pixels = pixels_of(picture.demo_picture(script, list(map(answered, questions, spans)), "heading", "foot"))
    rows = [picture.ROWS_TOP + picture.ROW * number for number in range(3)]
    middle = picture.ROW // 2

    def place(second):
        return round(picture.AXIS_LEFT + (picture.AXIS_RIGHT - picture.AXIS_LEFT) * second / 600)

    for top, second in zip(rows, (75, 595)):
        (frame,) = render_frames(script, [second], picture.FRAME)
        left_top = (picture.MARGIN, top + (picture.ROW - picture.FRAME) // 2)
        shown = pixels[left_top[1] : left_top[1] + picture.FRAME, left_top[0] : left_top[0] + picture.FRAME]
        assert (shown == frame).all()
    blank = pixels[rows[2] + 10 : rows[2] + 80, picture.MARGIN : picture.MARGIN + picture.FRAME]
    assert (blank == picture.PAPER).all()
    for top, looked, elsewhere in zip(rows, ([75, 400], [595], []), ([30, 200, 500], [30, 500], [30, 500])):
        for second in looked:
            assert tuple(pixels[top + middle, place(second)]) == picture.LOOKED
        for second in elsewhere:
            if not any(start - 12 <= second <= end + 12 for q in questions for start, end in q.evidence):
                assert tuple(pixels[top + middle, place(second)]) == picture.LINE


def test_the_picture_marks_true_moments_and_wrong_answers():
    script = generate_script(8, 600, split="test")
    (question, *_) = questions_of(8, minutes=10)
    right, wrong = (
        pixels_of(picture.demo_picture(script, [answered(question, [], ok)], "heading", "foot")) for ok in (True, False)
    )
    top = picture.ROWS_TOP + (picture.ROW - picture.BAR) // 2
    for start, _ in question.evidence:
        x = round(picture.AXIS_LEFT + (picture.AXIS_RIGHT - picture.AXIS_LEFT) * start / 600)
        box = right[top - 6 : top + picture.BAR + 6, x - 12 : x + 12]
        assert (box == picture.INK).all(-1).any()
    for pixels, colour, other in ((right, picture.RIGHT, picture.WRONG), (wrong, picture.WRONG, picture.RIGHT)):
        text = pixels[picture.ROWS_TOP + 60 : picture.ROWS_TOP + 92, picture.TEXT_LEFT : picture.TEXT_LEFT + 300]
        assert (text == colour).all(-1).any()
        assert not (text == other).all(-1).any()


@pytest.mark.parametrize("smaller", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_command_of_the_readme(tmp_path, monkeypatch, smaller):
    """It says the same each time. In the fast tier a smaller model answers once."""
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(tiny_checkpoint())] if smaller else []
    (line,) = re.findall(r"^hourllava demo.*", README.read_text(), flags=re.MULTILINE)
    runs = [
        CliRunner().invoke(app, [*shlex.split(line)[1:], "--minutes", "1", *model]) for _ in range(1 if smaller else 2)
    ]
    assert not any(run.exit_code for run in runs), runs[0].output
    (first,) = {re.sub(r"in \d+ s", "", run.stdout) for run in runs}
    num_asked = len(re.findall(r"^ +(?:RIGHT|wrong) ", first, flags=re.MULTILINE))
    assert f"of {num_asked} answers are right" in first
    assert re.search(r"looked at +0:0\d:\d\d-0:0\d:\d\d \(\d+%\)", first)
    assert {path.suffix for path in Path("out/demo").iterdir()} == {".mp4", ".png"}


def test_a_seed_is_drawn_and_said(tmp_path, stubbed, monkeypatch):
    monkeypatch.setattr(demo.secrets, "randbelow", lambda limit: limit - 1)
    said = stubbed(999_999, 10)
    demo.run_demo(None, 10, tmp_path, "nano", said.append)
    assert "--seed 999999" in said[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["world-999999.mp4", "world-999999.png"]


@pytest.mark.parametrize("minutes", [0, 0.5, -3, 1441, float("nan")])
def test_lengths_outside_what_is_allowed(tmp_path, minutes):
    with pytest.raises(ConfigError, match="use 1 to 1440"):
        demo.run_demo(1, minutes, tmp_path, "nano", print)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="choose another folder with --out"):
        demo.run_demo(1, 1, tmp_path / "file", "nano", print)
