"""Painted pictures: arbitrary colours, shapes as names, and no word for a colour in any text."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data.question_files import split_options
from hourllava.choices import LETTERS
from hourllava.data.records.loading import LoadReport, iterate_questions
from hourllava.video.drawn import open_registered
from hourllava.world import generate_script
from hourllava.world.captions import generate_captions
from hourllava.world.drawing.backdrops import backdrop
from hourllava.world.drawing.painting import painted
from hourllava.world.drawing.paints import MIN_DISTANCE
from hourllava.world.drawing.render import Renderer
from hourllava.world.drawing.sprites import _drawn_sprite, sprite
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.making import pictures
from hourllava.world.making.make import make_settings, make_world
from hourllava.world.making.pictures import PictureSettings, _Job, _make_record
from hourllava.world.making.records import question_rows
from hourllava.world.questions import generate_questions
from hourllava.world.questions.solver import Solver
from hourllava.world.questions.stills import PICTURE_PHRASINGS, still_at, still_exchange
from hourllava.world.reference import load_reference
from hourllava.world.rng import Draws
from hourllava.world.script import check_script, screen_log
from hourllava.world.vocabulary import COLOURS, PLACES, SHAPES
from world.questions.stills_solver import Seen, solve

COLOUR_WORD = re.compile(rf"\b(?:{'|'.join(COLOURS)}|colours?|colou?red|#)\b", re.IGNORECASE)


def pairs(number):
    """Yield (script, still, painted script, painted still) of `number` pictures."""
    for seed in range(number):
        script, draws = generate_script(seed, 30, split="train"), Draws("test", seed)
        still = draws.pick([found for time in range(30) if (found := still_at(script, time)) and not found.card])
        yield script, still, *painted(script, still, draws)


def sized(still):
    return {place: still.sizes[name] for name, place in still.places.items()}


def rgb(colour):
    return [int(colour[k : k + 2], 16) for k in (1, 3, 5)]


def ninth(frame, place):
    """The ninth of a 64-pixel frame that contains a place."""
    row, column = divmod(PLACES.index(place), 3)
    edges = (0, 22, 43, 64)
    return frame[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]


def test_objects_have_shapes_for_names_and_keep_their_places_and_sizes():
    used = Counter()
    for _, still, second, shown in pairs(120):
        check_script(second)
        assert (shown.title, shown.card) == (still.title, None)
        assert sized(shown) == sized(still)
        assert len(shown.places) == len(still.places)
        assert all(member.name == member.shape in SHAPES for member in second.cast)
        assert {member.name for member in second.cast} == set(shown.places)
        used.update(list(shown.places))
    assert set(used) == set(SHAPES)
    assert max(used.values()) < 1.7 * min(used.values())


def test_colours_are_drawn_from_the_whole_cube():
    colours = np.array([rgb(member.colour) for _, _, second, _ in pairs(150) for member in second.cast])
    assert len(np.unique(colours, axis=0)) == len(colours)
    octants = Counter(map(tuple, colours // 128))
    assert len(octants) == 8
    assert min(octants.values()) > len(colours) / 40


def test_rendered_objects_are_far_from_the_backdrop_and_from_the_eight_colours():
    eight = np.array(list(COLOURS.values()))
    for script, still, second, shown in pairs(120):
        frame, before = Renderer(second, 64).frame(0), Renderer(script, 64).frame(still.time_seconds)
        empty = backdrop(still.scene, still.occasion, 64)
        changed = (frame != before).any(-1)
        for place in set(PLACES) - set(still.places.values()):
            assert not ninth(changed, place).any()
        for member in second.cast:
            seen, behind = (ninth(picture, shown.places[member.name]) for picture in (frame, empty))
            colour = np.array(rgb(member.colour))
            assert (seen == colour).all(-1).sum() >= 12  # pixels of a small moon
            assert np.linalg.norm(behind.astype(int) - colour, axis=-1).min() >= MIN_DISTANCE
            assert np.linalg.norm(eight - colour, axis=-1).min() >= MIN_DISTANCE


def test_any_colour_is_mixed_as_if_drawn_and_not_kept():
    _drawn_sprite.cache_clear()
    for _, _, second, _ in pairs(100):
        Renderer(second, 64).frame(0)
    assert _drawn_sprite.cache_info().currsize == 2 * 2 * len(SHAPES)  # black and white, small and large
    draws = Draws("mixed")
    for shape in SHAPES:
        for diameter, angle in ((13, 0), (21, 0), (84, 30)):
            colour = tuple(draws.below(256) for _ in range(3))
            mixed, keep = sprite(shape, "#{:02x}{:02x}{:02x}".format(*colour), diameter, angle)
            drawn, kept = _drawn_sprite(shape, colour, diameter, angle)
            assert np.abs(mixed.astype(int) - drawn).max() <= 2
            assert (keep == kept).all()
            assert (mixed + (255 * keep >> 8)).max() <= 255


def test_every_answer_follows_from_the_screen_log():
    asked = Counter()
    for seed, (_, _, second, shown) in enumerate(pairs(150)):
        draws = Draws("asked", seed)
        for _ in range(8):
            exchange = still_exchange(shown, "train", draws)
            assert solve([Seen(second, 0)], exchange.question, "train", second) == {exchange.answer}, exchange
            assert not exchange.options or exchange.options.count(exchange.answer) == 1
            assert len(set(exchange.options)) == len(exchange.options)
            assert not COLOUR_WORD.search(" ".join((exchange.question, exchange.answer, *exchange.options)))
            asked[exchange.template, exchange.answer] += 1
    templates = {template for template, _ in asked}
    assert templates == {"describe", "is_card", "event", "scene", "place", "object_at_place", "shape_at_place",
                         "relative", "size", "count", "is_there"}  # fmt: skip
    for template in ("object_at_place", "shape_at_place"):
        assert {answer for other, answer in asked if other == template} == set(SHAPES)
    assert asked["is_there", "yes"] == pytest.approx(asked["is_there", "no"], rel=0.5)


def records(monkeypatch, folder, split, number):
    """Yield the records of single pictures, each with its painted script or None."""
    (folder / "images" / "marathonworld").mkdir(parents=True)
    scripts = []

    def noted(*arguments):
        scripts.append(painted(*arguments))
        return scripts[-1]

    monkeypatch.setattr(pictures, "painted", noted)
    for index in range(number):
        record = json.loads(_make_record(_Job(PictureSettings(split=split), folder, "image", index)))
        yield record, scripts.pop()[0] if scripts else None


def test_one_picture_of_objects_in_two_is_painted_and_its_record_names_no_colour(monkeypatch, tmp_path):
    kinds = Counter()
    for record, second in records(monkeypatch, tmp_path, "train", 300):
        text = " ".join(turn["value"] for turn in record["conversations"])
        if second is None:
            kinds["card" if "A card shows" in text else "named"] += 1
            continue
        kinds["painted"] += 1
        assert not COLOUR_WORD.search(text)
        for human, gpt in zip(record["conversations"][::2], record["conversations"][1::2]):
            asked, options = split_options(human["value"].removeprefix("<image>\n"))
            answer = options[LETTERS.index(gpt["value"])] if options else gpt["value"]
            assert solve([Seen(second, 0)], asked, "train", second) == {answer}
        with Image.open(tmp_path / "images" / record["image"]) as image:
            stored = np.asarray(image).astype(int)
        assert np.abs(stored - Renderer(second, 64).frame(0)).mean() < 6  # of JPEG
    assert kinds["painted"] / (kinds["painted"] + kinds["named"]) == pytest.approx(1 / 2, abs=0.08)
    assert kinds["card"] / kinds.total() == pytest.approx(1 / 3, abs=0.08)


def test_no_picture_of_the_test_split_is_painted(monkeypatch, tmp_path):
    described = 0
    for record, second in records(monkeypatch, tmp_path, "test", 40):
        assert second is None
        for human, gpt in zip(record["conversations"][::2], record["conversations"][1::2]):
            if human["value"].removeprefix("<image>\n") in PICTURE_PHRASINGS["describe"]["test"]:
                assert COLOUR_WORD.search(gpt["value"])
                described += 1
    assert described >= 40


def test_other_pictures_are_as_if_none_was_painted(monkeypatch, tmp_path):
    with_painted = list(records(monkeypatch, tmp_path / "with", "train", 60))
    monkeypatch.setattr(pictures, "PAINTED_SHARE", 2**62)
    without = list(records(monkeypatch, tmp_path / "without", "train", 60))
    assert all(second is None for _, second in without)
    for (record, second), (other, _) in zip(with_painted, without):
        paths = [tmp_path / name / "images" / record["image"] for name in ("with", "without")]
        assert (record == other, paths[0].read_bytes() == paths[1].read_bytes()) == ((second is None,) * 2)


def test_painted_videos_name_objects_by_their_shape_and_ask_what_can_be_seen():
    asked = Counter()
    for seed, duration_seconds in enumerate((12, 40, 75, 180, 600, 400, 20)):
        density = list(DIFFICULTIES.values())[seed % len(DIFFICULTIES)]
        script = generate_script(seed, duration_seconds, density=density, needles=0, painted=True)
        assert script.is_painted
        for member in script.cast:
            rgb = np.array(list(bytes.fromhex(member.colour[1:])))
            assert min(np.linalg.norm(rgb - colour) for colour in COLOURS.values()) >= MIN_DISTANCE
            assert member.name == member.shape
        solver = Solver(screen_log(script), duration_seconds)
        for question in generate_questions(script, per_task=2):
            assert not COLOUR_WORD.search(f"{question.question} {question.options} {question.answer}")
            assert solver.solve(question.question, question.options) == question.answer, question
            asked[question.template] += 1
        assert not COLOUR_WORD.search(generate_captions(script).overall)
    assert len(asked) > 30
    assert not asked["colour_at_place"]
    assert min(asked["shape_at_place"], asked["which_never_appears"], asked["object_appears"]) > 5


def test_a_painted_reference_shows_its_script(tmp_path):
    settings = make_settings(
        1, "0.5", 3, "train", "hard", 0, 1, "both", 64, "reference", tasks="Object Recognition", painted=True
    )
    make_world(settings, tmp_path, processes=1)
    path = next(tmp_path.rglob("*.world.json"))
    reference = load_reference(path)
    script = generate_script(
        reference.seed, reference.duration_seconds, density=DIFFICULTIES["hard"], needles=0, painted=True
    )
    video = open_registered(path, fps=1.0)
    assert all((video.read(time, None) == Renderer(script, 64).frame(time)).all() for time in (0, 29))
    asked = iterate_questions(tmp_path / "jsons/questions.parquet", LoadReport())
    expected = question_rows(script, "v", 1, tasks=settings.tasks)
    assert [row.question for row in asked] == [row.question for row in expected]
