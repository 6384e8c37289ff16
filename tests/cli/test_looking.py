"""Commands to look before a long run: `data show` and `train --list`."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cli.in_process import error_line, run_here
from hourllava.cli.session import describe_installation
from hourllava.data.mds.writer import ShardWriter
from hourllava.model.checkpoint import load_config
from hourllava.model.config import HourLlavaConfig
from hourllava.model.nano import FOLDER, nano_tokenizer
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.recipe import shipped_recipes
from video.clips import write_clip


def turns(*pairs):
    for question, answer in pairs:
        yield {"from": "human", "value": question}
        yield {"from": "gpt", "value": answer}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=40, fps=4)


@pytest.fixture
def shards(tmp_path, monkeypatch, clip):
    """Two streams of a stage in the current folder: a video with two questions; an image, and text only."""
    monkeypatch.chdir(tmp_path)
    Path("media").mkdir()
    shutil.copy(clip, "media/clip.mp4")
    asked = [("<image>\nWhat is shown?", "A board."), ("Is it dark?", "Partly.")]
    with ShardWriter(Path("stage/0"), {"video": "str", "text": "json"}) as writer:
        writer.write({"video": "clip.mp4", "text": {"conversations": list(turns(*asked))}})
    with ShardWriter(Path("stage/1"), {"image": "jpeg", "text": "json"}) as writer:
        record = {"image": "a.jpg", "conversations": list(turns(("<image>\nWhich colour?", "Red.")))}
        writer.write({"image": Image.new("RGB", (64, 48)), "text": record})
        writer.write({"image": Image.new("RGB", (1, 1)), "text": {"conversations": list(turns(("Say 1.", "1.")))}})
    Path("stage/streams.json").write_text('{"streams": [{"folder": "0"}, {"folder": "1"}], "media_root": "../media"}')


def show(*arguments):
    ended = run_here("data", "show", *arguments)
    assert ended.code == 0, ended.stderr
    return ended.stdout


COUNTS = re.compile(
    r"sample (\d) of (\d): (\d+) views, (\d+) kept tokens, (?:\d+ recall tokens, )?"
    r"(\d+) text tokens, of which (\d+) are supervised"
)


@pytest.mark.usefixtures("shards")
def test_a_video_as_the_model_sees_it():
    shown = show("stage", 0)
    (counts,) = COUNTS.findall(shown)
    number, total, views, kept, _, supervised = map(int, counts)
    assert (number, total, views) == (1, 1, 10)
    assert shown.startswith("row 0: video clip.mp4\n")
    assert f"<{kept} kept tokens>" in shown
    answers = re.findall(r"\[\[(.*?)\]\]", shown, flags=re.DOTALL)
    assert [answer.split("<|im_end|>")[0] for answer in answers] == ["A board.", "Partly."]
    assert supervised >= 4
    assert "What is shown?" in shown
    assert "[[What" not in shown
    one_stream = show("stage/0", 0, "--media", "media")
    assert one_stream == shown


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize("num_recall", [0, 3])
def test_recall_tokens_are_told_apart(tmp_path, num_recall):
    config = HourLlavaConfig.preset("hourllava-nano", memaug={"recall": "question", "recall_tokens": num_recall})
    HourLlavaProcessor(nano_tokenizer(), config).save_pretrained(tmp_path / "instant")
    shown = show("stage", 0, "--questions", "segments", "--model", tmp_path / "instant")
    (kept,) = set(re.findall(r" views, (\d+) kept tokens, ", shown))
    assert shown.count(f"<{kept} kept tokens>") == 2
    assert shown.count(f"<{kept} kept tokens><{num_recall} recall tokens>") == (2 if num_recall else 0)
    assert shown.count(f" kept tokens, {num_recall} recall tokens, ") == (2 if num_recall else 0)
    assert "kept" not in show("stage", 2, "--model", tmp_path / "instant").replace(" 0 kept tokens, ", "")


@pytest.mark.usefixtures("shards")
def test_questions_one_by_one():
    shown = show("stage", 0, "--questions", "segments")
    assert [counts[:3] for counts in COUNTS.findall(shown)] == [("1", "2", "10"), ("2", "2", "10")]
    assert len(re.findall(r"<\d+ kept tokens>", shown)) == 2
    assert shown.count("A board.") == 1
    after_another = show("stage", 0, "--questions", "segments", "--history", 1)
    assert after_another.count("A board.") == 2
    assert re.findall(r"\[\[(.*?)<", after_another) == re.findall(r"\[\[(.*?)<", shown) == ["A board.", "Partly."]


@pytest.mark.usefixtures("shards")
def test_images_and_text():
    shown = show("stage", 1)
    assert shown.startswith("row 1: images of 64 x 48 pixels\n")
    assert "[[Red." in shown
    text = show("stage", 2, "--labels", "llava")
    assert " 0 views, 0 kept tokens, " in text
    assert "kept tokens>" not in text


@pytest.mark.usefixtures("shards")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["stage", 3], 2, "stage has no row 3; use 0 to 2"),
        (["stage/1", 2], 2, "stage/1 has no row 2; use 0 to 1"),
        (["stage", 0, "--labels", "all"], 2, "--labels is 'all'; use one of: answers, llava"),
        (["stage", 0, "--questions", "all"], 2, "questions is 'all'"),
        (["stage", 0, "--history", 1], 2, "history is 1; with questions 'conversation' it has no effect"),
        (["stage", 0, "--media", "."], 6, "clip.mp4 cannot be read"),
        (["nowhere", 0], 6, "nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_gets_one_line(arguments, code, words):
    ended = run_here("data", "show", *arguments)
    assert (ended.code, ended.stdout) == (code, "")
    assert words in error_line(ended)


def test_every_shipped_recipe_is_listed_with_a_sentence():
    ended = run_here("train", "--list")
    assert (ended.code, ended.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in ended.stdout.splitlines()]
    assert [path for path, _ in lines] == shipped_recipes()
    assert all(re.fullmatch(r"[A-Z].{20,}\.", sentence) for _, sentence in lines)
    sentences = dict(lines)
    assert sentences["recipes/hourllava-7b/s3.yaml"] == sentences["recipes/hourllava-3b/s3.yaml"]  # their base's


@pytest.mark.parametrize(("preset", "kept_mb"), [("hourllava-3b", 357), ("hourllava-7b", 570)])
def test_info_says_what_is_kept_of_prompts(preset, kept_mb, tmp_path):
    HourLlavaConfig.preset(preset, memaug={"recall": "question"}).save_pretrained(tmp_path)
    described = describe_installation([str(tmp_path)])["models"][str(tmp_path)]
    assert described.endswith(f"; 64 recall tokens, {kept_mb} MB kept of prompts about an hour (bf16)")
    HourLlavaConfig.preset(preset).save_pretrained(tmp_path)
    assert "recall" not in describe_installation([str(tmp_path)])["models"][str(tmp_path)]
    (nano,) = describe_installation(["nano"])["models"].values()
    assert ("; 64 recall tokens, " in nano) == (load_config(FOLDER).memaug.recall == "question")
