"""Pictures and texts: folders, records and errors are as documented; words and pictures keep to their split."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from data.question_files import split_options
from hourllava.choices import LETTERS
from hourllava.errors import ConfigError
from hourllava.world.making.make import MakeSettings, make_world
from hourllava.world.making.pictures import PictureSettings, _Job, _make_record, make_picture_settings, make_pictures
from hourllava.world.questions.draft import PHRASINGS
from hourllava.world.questions.stills import PICTURE_PHRASINGS
from hourllava.world.vocabulary import COLOURS, SHAPES, SPLITS, split_pairs
from world.folders import digests
from world.questions.stills_solver import PATTERNS

SMALL = PictureSettings(images=12, multi_images=8, texts=12, questions=3, seed=1)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_folders_records_and_going_on(tmp_path, processes):
    out = tmp_path / "pictures"
    make_pictures(SMALL, out, processes)
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
                described = [
                    k for k, question in enumerate(questions) if question in PICTURE_PHRASINGS["describe"]["train"]
                ]
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


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    """Text records by split."""
    return {
        split: [_make_record(_Job(PictureSettings(split=split), Path(), "text", index)) for index in range(1000)]
        for split in SPLITS
    }


def test_texts_speak_of_all_combinations_alike(texts):
    for of_split in texts.values():
        counts = Counter(pair for text in of_split for pair in pairs_of(text))
        assert len(counts) == 64
        mean = counts.total() / 64
        assert all(0.5 * mean < count < 1.6 * mean for count in counts.values())
        answers = Counter(pair for text in of_split for pair in pairs_of(json.loads(text)["conversations"][1]["value"]))
        assert sum(answers[pair] for pair in split_pairs("test")) / answers.total() == pytest.approx(0.25, abs=0.05)


def test_pictures_and_videos_show_those_of_their_split_only(tmp_path):
    make_pictures(PictureSettings(images=60, multi_images=50, texts=0, size_pixels=16), tmp_path / "pictures", 1)
    make_world(MakeSettings(videos=20, min_seconds=20, max_seconds=60, container="reference"), tmp_path / "world", 1)
    names = ("pictures/jsons/image.json", "pictures/jsons/images.json", "world/jsons/videomarathon.json")
    shown = [pairs_of((tmp_path / name).read_text()) for name in names]
    assert set.union(*shown) == set(split_pairs("train"))
    assert min(map(len, shown)) > 30


def test_words_for_shapes_are_in_no_phrasing():
    for phrasings in (PICTURE_PHRASINGS, PHRASINGS):
        assert not re.search(rf"\b({'|'.join(SHAPES)})\b", json.dumps(phrasings), re.IGNORECASE)


def test_answers_about_texts_follow_from_them(texts):
    """Permuting the words for shapes keeps the meaning of a text."""
    found = Counter()
    for human, gpt in (json.loads(text)["conversations"] for text in texts["train"]):
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
