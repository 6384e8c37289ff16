"""Pictures and texts: every answer is found again from the screen log, and the folders and errors are as documented."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.question_files import split_options
from hourllava.choices import LETTERS
from hourllava.errors import ConfigError
from hourllava.world import generate_script, screen_log
from hourllava.world.making.make import MakeSettings, make_world
from hourllava.world.making.pictures import PictureSettings, _Job, _make_record, make_picture_settings, make_pictures
from hourllava.world.questions.draft import PHRASINGS as VIDEO_PHRASINGS
from hourllava.world.questions.stills import PHRASINGS, still_at, still_exchange, stills_exchange
from hourllava.world.rng import Draws
from hourllava.world.vocabulary import COLOURS, GLYPHS, OCCASIONS, PLACES, SCENES, SHAPES, SPLITS, split_pairs

SMALL = PictureSettings(images=12, multi_images=8, texts=12, questions=3, seed=1)
ROWS, COLUMNS = ("above", "", "below"), ("left", "", "right")


OBJECT = f"(?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(SHAPES)})"  # painted ones have no colour
THING = f"the (?:{OBJECT}|letter (?:{'|'.join(GLYPHS)})|(?:{'|'.join(OCCASIONS)}) in the (?:{'|'.join(SCENES)}))"
SLOTS = {
    "object": OBJECT, "an_object": f"an? {OBJECT}", "place": "|".join(PLACES), "glyph": "|".join(GLYPHS),
    "number": "[1-5]", "thing": THING, "question": ".+", "text": "(?s:.+)",
}  # fmt: skip


def patterns(split):
    """(template, pattern with named slots) of every phrasing."""
    for template, phrasings in PHRASINGS.items():
        for phrasing in phrasings[split]:
            parts = re.split(r"\{(\w+)\}", phrasing)
            yield (
                template,
                re.compile(
                    "".join(
                        re.escape(part) if k % 2 == 0 else f"(?P<{part}>{SLOTS[part.rstrip('2')]})"
                        for k, part in enumerate(parts)
                    )
                ),
            )


PATTERNS = {split: list(patterns(split)) for split in ("train", "test")}


class Seen:
    """What the screen log says of one second."""

    def __init__(self, script, second):
        log = [shown for shown in screen_log(script) if shown.start_seconds <= second < shown.end_seconds]
        self.card = next((shown for shown in log if shown.kind == "card"), None)
        self.title = next(shown.name for shown in log if shown.kind == "event")
        self.moves = any(shown.kind == "action" for shown in log)
        self.objects = {} if self.card else {shown.name: shown for shown in log if shown.kind == "object"}

    def at(self, place):
        return next(shown for shown in self.objects.values() if shown.place == place)

    def answer(self, template, slots, script):
        sizes = {member.name: member.size for member in script.cast}
        match template:
            case "is_card":
                return "yes" if self.card else "no"
            case "letter":
                return self.card.name
            case "letter_colour":
                assert slots["glyph"] == self.card.name
                return self.card.colour
            case "event":
                return self.title
            case "scene":
                return self.title.split(" in the ")[1]
            case "place":
                return self.objects[slots["object"]].place
            case "object_at_place":
                return self.at(slots["place"]).name
            case "colour_at_place":
                return self.at(slots["place"]).colour
            case "shape_at_place":
                return self.at(slots["place"]).shape
            case "size":
                return sizes[slots["object"]]
            case "count":
                return str(len(self.objects))
            case "is_there":
                return "yes" if re.sub("^an? ", "", slots["an_object"]) in self.objects else "no"
            case "relative":
                (r, c), (r2, c2) = (
                    divmod(PLACES.index(self.objects[slots[name]].place), 3) for name in ("object", "object2")
                )
                return f"{ROWS[int(np.sign(r - r2)) + 1]} {COLUMNS[int(np.sign(c - c2)) + 1]}".strip()
            case "describe":
                if self.card:
                    return f"A card shows the letter {self.card.name} in {self.card.colour}."
                shown = sorted(self.objects.values(), key=lambda shown: PLACES.index(shown.place))
                parts = [f"a {sizes[one.name]} {one.name} in the {one.place}" for one in shown]
                return f"{self.title[0].upper()}{self.title[1:]}: {', '.join(parts[:-1])} and {parts[-1]}."


def solve(seen, question, split, script):
    """The answers of all readings of a question; there must be one."""
    answers = set()
    for template, pattern in PATTERNS[split]:
        match = pattern.fullmatch(question)
        if not match or template in ("about_text", "which_option", "copy"):
            continue
        slots = match.groupdict()
        several = len(seen) > 1
        answers.add(
            solve_several(seen, template, slots, split, script) if several else seen[0].answer(template, slots, script)
        )
    return answers - {None}


def solve_several(seen, template, slots, split, script):
    match template:
        case "in_image":
            (answer,) = solve([seen[int(slots["number"]) - 1]], slots["question"], split, script)
            return answer
        case "num_cards":
            return str(sum(one.card is not None for one in seen))
        case "same_event":
            a, b = (seen[int(slots[name]) - 1] for name in ("number", "number2"))
            return "yes" if a.title == b.title else "no"
        case "what_moved":
            (name,) = [n for n in seen[0].objects if seen[0].objects[n].place != seen[-1].objects[n].place]
            return name
        case "which_image_place":
            has = [one.objects[slots["object"]].place == slots["place"] if slots["object"] in one.objects else False
                   for one in seen]  # fmt: skip
        case "which_image":
            thing = slots["thing"].removeprefix("the ")
            letter = thing.removeprefix("letter ")
            has = [
                one.card.name == letter if one.card else thing in (*one.objects, one.title.removeprefix("the "))
                for one in seen
            ]
        case _:
            return None
    assert sum(has) == 1
    return f"image {has.index(True) + 1}"


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_answer_follows_from_the_screen_log(split):
    templates = 0
    for seed in range(60):
        script = generate_script(seed, 30, split=split)
        stills = [still for second in range(30) if (still := still_at(script, second))]
        draws = Draws("test", seed)
        for _ in range(12):
            chosen = sorted(draws.sample(stills, draws.between(1, 4)), key=lambda still: still.time_seconds)
            seen = [Seen(script, still.time_seconds) for still in chosen]
            assert not any(one.moves for one in seen)
            several = len(chosen) > 1
            exchange = stills_exchange(chosen, split, draws) if several else still_exchange(chosen[0], split, draws)
            assert solve(seen, exchange.question, split, script) == {exchange.answer}, exchange
            assert not exchange.options or exchange.options.count(exchange.answer) == 1
            assert len(set(exchange.options)) == len(exchange.options)
            templates += 1
    assert templates == 720


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_folders_records_and_going_on(tmp_path):
    out = tmp_path / "pictures"
    make_pictures(SMALL, out, processes=2)
    first = digests(out)
    first_described: set[int] = set()
    for kind, count in (("image", 12), ("images", 8), ("text", 12)):
        records = json.loads((out / "jsons" / f"{kind}.json").read_text())
        assert len(records) == count
        for record in records:
            names = record.get("image", [])
            names = [names] if isinstance(names, str) else names
            assert (len(names) == 1, len(names) > 1, not names) == tuple(kind == k for k in ("image", "images", "text"))
            asked = record["conversations"][0]["value"]
            assert asked.count("<image>") == len(names)
            assert asked.startswith("<image>" * len(names) + "\n" if names else asked)
            for name in names:
                with Image.open(out / "images" / name) as image:
                    assert (image.format, image.size) == ("JPEG", (64, 64))
            if kind == "image":
                questions = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"][::2]]
                described = [k for k, question in enumerate(questions) if question in PHRASINGS["describe"]["train"]]
                assert described
                first_described.add(described[0])
            for human, gpt in zip(record["conversations"][::2], record["conversations"][1::2]):
                _, options = split_options(human["value"])
                assert gpt["value"] in LETTERS[:4] if options else gpt["value"]
    assert len(first_described) > 1  # the description does not always come first
    (out / "jsons" / "images.json").unlink()
    next((out / "images" / "marathonworld").glob("images-*")).unlink()
    make_pictures(SMALL, out, processes=1)
    assert digests(out) == first


PAIR = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")


def pairs_of(text: str) -> set[tuple[str, ...]]:
    return {match.groups() for match in PAIR.finditer(text)}


def test_texts_speak_of_all_combinations_alike():
    for split in SPLITS:
        settings = PictureSettings(split=split)
        texts = [_make_record(_Job(settings, Path(), "text", index)) for index in range(2000)]
        counts = Counter(pair for text in texts for pair in pairs_of(text))
        assert len(counts) == 64
        mean = counts.total() / 64
        assert all(0.6 * mean < count < 1.4 * mean for count in counts.values())
        answers = Counter(pair for text in texts for pair in pairs_of(json.loads(text)["conversations"][1]["value"]))
        assert sum(answers[pair] for pair in split_pairs("test")) / answers.total() == pytest.approx(0.25, abs=0.04)


def test_pictures_and_videos_show_those_of_their_split_only(tmp_path):
    make_pictures(PictureSettings(images=250, multi_images=150, texts=0, size_pixels=16), tmp_path / "pictures", 1)
    make_world(MakeSettings(videos=30, min_seconds=20, max_seconds=60, container="reference"), tmp_path / "world", 1)
    for name in ("pictures/jsons/image.json", "pictures/jsons/images.json", "world/jsons/videomarathon.json"):
        assert pairs_of((tmp_path / name).read_text()) == set(split_pairs("train"))


def test_words_for_shapes_are_in_no_phrasing():
    for phrasings in (PHRASINGS, VIDEO_PHRASINGS):
        assert not re.search(rf"\b({'|'.join(SHAPES)})\b", json.dumps(phrasings), re.IGNORECASE)


def test_answers_about_texts_follow_from_them():
    """Exchanging words for shapes keeps what a text says."""
    texts = [
        json.loads(_make_record(_Job(PictureSettings(), Path(), "text", index)))["conversations"]
        for index in range(1500)
    ]
    found = Counter()
    for human, gpt in texts:
        asked, options = split_options(human["value"])
        answer = options[LETTERS.index(gpt["value"])] if options else gpt["value"]
        for template, pattern in PATTERNS["train"]:
            if template == "copy" and (match := pattern.fullmatch(asked)):
                assert match["text"] == answer
                found[template] += 1
            if template == "about_text" and (match := pattern.fullmatch(asked)) and pairs_of(answer):
                assert options or pairs_of(match["text"]) >= pairs_of(answer)
                found[template] += 1
            if template == "which_option" and (match := pattern.fullmatch(asked)):
                assert match["text"] == answer
                found[template] += 1
    assert min(found[template] for template in ("copy", "about_text", "which_option")) > 50


def test_bad_parameters_get_one_clear_line(tmp_path):
    good = {
        "images": 1, "multi_images": 1, "texts": 1, "questions": 1, "seed": 0, "split": "train", "size_pixels": 64
    }  # fmt: skip
    for changes, words in (
        ({"images": -1}, "--images is -1; use 0 to"),
        ({"questions": 0}, "--questions is 0; use 1 to 20"),
        ({"split": "dev"}, "--split is 'dev'; use one of: train, test"),
        ({"size_pixels": 8}, "--size-pixels is 8; use 16 to 2048"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_picture_settings(**(good | changes))
    with pytest.raises(ConfigError, match="--processes is 0"):
        make_pictures(SMALL, tmp_path / "new", processes=0)
