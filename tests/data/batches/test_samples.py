"""Rows of shards to samples: every kind of media, questions apart, and lengths that are told without decoding."""

import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import tiny_config, tiny_model
from data.shard_rows import write
from hourllava.data.batches import lengths as lengths_module
from hourllava.data.batches import samples as rows_module
from hourllava.data.batches.lengths import UNKNOWN, stream_lengths
from hourllava.data.batches.samples import RowEncoder, question_parts
from hourllava.data.features.files import FeatureSettings, write_features
from hourllava.data.mds.reader import MdsDataset
from hourllava.errors import ConfigError, DataError, InputError, VideoError
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory, WatchedSource
from hourllava.model.config import MemAugConfig
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.vision import frame_pixels
from hourllava.world.drawing.render import render_frames
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.reference import Reference
from video.clips import number_of, write_clip

WIDTH, GRID = 24, 4  # of the tiny model


def memory_of(num_frames, width=WIDTH):
    """A memory whose frame k holds the number k."""
    features = torch.arange(num_frames).bfloat16()[:, None, None].expand(-1, GRID**2, width).contiguous()
    times = np.arange(num_frames) + 0.0
    return Memory(features, times, times, fps=1.0, duration_seconds=num_frames - 0.25, source=WatchedSource("v.mp4"),
                  encoder=EncoderIdentity("d", width, GRID))  # fmt: skip


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A media folder: a clip, features in every form, and what is wrong with features."""
    root = tmp_path_factory.mktemp("media")
    (root / "s").mkdir()
    write_clip(root / "s/clip.mp4", num_frames=41, fps=2)
    write_clip(root / "s/short.mp4", num_frames=1, fps=4)
    memory_of(12).save(root / "s/v.safetensors")
    options = {"fps": 1.0, "encoder_digest": "d", "feature_width": WIDTH, "grid": GRID}
    write_features(root / "s/v.int8.safetensors", memory_of(12),
                   FeatureSettings(form="memory", storage="int8", **options))  # fmt: skip
    torch.save({"vid_feat": memory_of(128).features, "duration": 20.5}, root / "s/short.pt")
    torch.save({"vid_feat": memory_of(150).features, "duration": 150.9}, root / "s/long.pt")
    memory_of(12, width=32).save(root / "s/wide.safetensors")
    torch.save({"vid_feat": memory_of(12, width=32).features, "duration": 12.0}, root / "s/wide.pt")
    for name in ("empty.safetensors", "empty.pt", "empty.mp4"):
        (root / "s" / name).touch()
    whole = (root / "s/v.safetensors").read_bytes()
    (root / "s/cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "s/cut.pt").write_bytes((root / "s/long.pt").read_bytes()[:5000])
    return root


@pytest.fixture
def encode(processor, media):
    return RowEncoder(processor, media)


def conversation(*questions, mark="<image>\n"):
    turns = []
    for k, question in enumerate(questions):
        turns += [{"from": "human", "value": (mark if k == 0 else "") + question}, {"from": "gpt", "value": f"yes {k}"}]
    return turns


def video_row(path, *questions):
    record = {"id": "q", "video": "s/clip.mp4", "conversations": conversation(*(questions or ("What is it?",)))}
    return {"video": path, "text": record}


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def image_row(*images, questions=("What is it?",), many=False):
    record = {"id": "q", "image": [f"{k}.png" for k in range(len(images))],
              "conversations": conversation(*questions, mark="<image>" * len(images) + "\n")}  # fmt: skip
    if not images:
        record = {"id": "q", "conversations": conversation(*questions, mark="")}
        images = [Image.new("RGB", (1, 1))]
    return {"image": list(images) if many else images[0], "text": record}


def tokens_of(samples, visual_id):
    kept = sum(int((sample.input_ids == visual_id).sum()) for sample in samples)
    return kept, sum(len(sample.input_ids) for sample in samples) - kept


def as_files(row):
    """The row with its images as the bytes of JPEG files."""

    def data(image):
        file = io.BytesIO()
        image.save(file, "JPEG")
        return file.getvalue()

    if "image" not in row:
        return row
    images = row["image"]
    return row | {"image": [data(image) for image in images] if isinstance(images, list) else data(images)}


QUESTIONS = ("What is it?", "Which number comes next, and why?", "Where?")
ROWS = {
    "clip": (video_row("s/clip.mp4", *QUESTIONS), 21),
    "one frame": (video_row("s/short.mp4"), 1),
    "memory": (video_row("s/v.safetensors", *QUESTIONS), 12),
    "int8": (video_row("s/v.int8.safetensors"), 12),
    "released, few seconds": (video_row("s/short.pt"), 20),
    "released": (video_row("s/long.pt", *QUESTIONS), 150),
    "several images": (image_row(picture(30, 20), picture(9, 50), questions=QUESTIONS, many=True), 2),
    "text": (image_row(questions=QUESTIONS), 0),
    "text among several": (image_row(many=True), 0),
}


@pytest.mark.parametrize("questions", ["conversation", "segments"])
@pytest.mark.parametrize("name", ROWS)
def test_lengths_are_those_of_the_samples(name, questions, processor, media):
    row, num_views = ROWS[name]
    encode = RowEncoder(processor, media, questions=questions)
    samples = encode(row, seed=5)
    assert encode.lengths(row) == encode.lengths(as_files(row)) == (num_views, *tokens_of(samples, 511))
    is_split = questions == "segments" and num_views
    assert len(samples) == (len(row["text"]["conversations"]) // 2 if is_split else 1)


@pytest.mark.parametrize("questions", ["conversation", "segments"])
@pytest.mark.parametrize("name", ["memory", "several images", "text"])
def test_lengths_count_the_recall_tokens_of_each_question(name, questions, tokenizer, processor, media):
    row, num_views = ROWS[name]
    recalling = HourLlavaProcessor(tokenizer, tiny_config(memaug=MemAugConfig(recall="question", recall_tokens=6)))
    encode, published = (RowEncoder(one, media, questions=questions) for one in (recalling, processor))
    samples = encode(row, seed=5)
    assert encode.lengths(row) == (num_views, *tokens_of(samples, 511))
    _, kept, text = published.lengths(row)
    assert encode.lengths(row)[1:] == (kept + 6 * (len(samples) if num_views else 0), text)
    # Lengths beside shards that were measured for the published way do not count here; those of it stay as they were.
    assert encode.settings == published.settings | {"recall_tokens": 6}
    assert "recall_tokens" not in published.settings


@pytest.mark.parametrize(
    ("size", "most_over"),
    [((24, 24), 2), ((100, 20), 0), ((20, 100), 4), ((5, 200), 9), ((300, 280), 0), ((72, 48), 0)],
)
def test_lengths_of_a_tiled_image_are_the_most_it_may_be(size, most_over, processor, media):
    encode = RowEncoder(processor, media)
    row = image_row(picture(*size))
    views, kept, text = encode.lengths(as_files(row))
    found = [tokens_of(encode(row, seed), 511) for seed in range(40)]
    assert {length for _, length in found} == {text}
    assert max(length for length, _ in found) <= kept <= max(length for length, _ in found) + most_over
    assert views == len(encode(row, 0)[0].pixels)


def test_lengths_of_a_text_that_is_cut(tokenizer, media):
    processor = HourLlavaProcessor(tokenizer, tiny_config(max_sequence_tokens=150))
    encode = RowEncoder(processor, media)
    for row in (video_row("s/clip.mp4", "why? " * 60), image_row(picture(9, 9), questions=["why? " * 90])):
        samples = encode(row, 0)
        _, kept, text = encode.lengths(row)
        assert len(samples[0].input_ids) == 150 == kept + text
    with pytest.raises(InputError, match="the model takes"):
        encode.lengths(video_row("s/long.pt"))


def test_frames_of_a_video_are_those_on_screen_each_second(encode):
    (sample,) = encode(video_row("s/clip.mp4"), 0)
    assert sample.pixels.shape == (21, 3, 24, 24)
    frames = sample.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    enlarged = [np.asarray(Image.fromarray(frame).resize((64, 48))) for frame in frames]
    assert [number_of(frame) for frame in enlarged] == list(range(0, 41, 2))


def test_features_go_in_as_they_are(encode):
    for name, expected in {
        "s/v.safetensors": range(12),
        "s/v.int8.safetensors": range(12),
        "s/short.pt": np.linspace(0, 127, 20).astype(int),
        "s/long.pt": range(150),
    }.items():
        (sample,) = encode(video_row(name), 0)
        assert sample.pixels is None
        assert sample.features[:, 0, 0].tolist() == pytest.approx(list(expected), abs=0.51), name  # bfloat16, int8
    text = encode.processor.decode(sample.input_ids[sample.input_ids != 511])
    assert "The video lasts for 150.90 seconds, and 150 frames are uniformly sampled from it." in text


def test_a_video_of_the_world_is_drawn_when_it_is_wanted(encode, media):
    reference = Reference(
        seed=3, duration_seconds=9, split="train", density=DIFFICULTIES["easy"], needles=2, size_pixels=24
    )
    (media / "s/w.world.json").write_text(reference.model_dump_json())
    row = video_row("s/w.world.json")
    (sample,) = encode(row, 0)
    frames = torch.from_numpy(render_frames(reference.script(), range(9), 24))
    torch.testing.assert_close(sample.pixels, frame_pixels(frames, encode.processor.config))
    assert encode.lengths(row) == (9, *tokens_of([sample], 511))
    (media / "s/no.world.json").write_text("{}")
    with pytest.raises(VideoError, match="no reference"):
        encode.lengths(video_row("s/no.world.json"))


@pytest.mark.parametrize("row", [ROWS["clip"][0], ROWS["memory"][0], ROWS["several images"][0]])
def test_questions_apart_share_one_memory(row, processor, media):
    encode = RowEncoder(processor, media, questions="segments")
    samples = encode(row, seed=1)
    assert len(samples) == 3
    assert all(sample.layout is samples[0].layout for sample in samples)
    assert [sample.pixels is None and sample.features is None for sample in samples] == [False, True, True]
    texts = [processor.decode(sample.input_ids[sample.input_ids != 511]) for sample in samples]
    assert [[question in text for question in QUESTIONS] for text in texts] == np.eye(3, dtype=bool).tolist()
    inputs = processor.collate_packed(samples)
    assert len(inputs["visuals"].memory_segments.lengths) == 1
    # Each question gets the loss it would get alone.
    model = tiny_model()
    alone = []
    for part in question_parts(row["text"]["conversations"], 2 if "image" in row else 1):
        apart = row | {"text": row["text"] | {"conversations": list(part.turns)}}
        inputs_alone = processor.collate_packed(RowEncoder(processor, media)(apart, seed=1))
        alone.append((model(**inputs_alone).loss.item(), int((inputs_alone["labels"] != -100).sum())))
    expected = sum(loss * count for loss, count in alone) / sum(count for _, count in alone)
    assert model(**inputs).loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("evidence", ["0-3", [3, 4], [["three", 4]]])
def test_evidence_that_is_none(evidence, encode):
    row = video_row("s/v.safetensors")
    row["text"]["conversations"][1]["evidence"] = evidence
    with pytest.raises(DataError, match=r"'evidence' is a list of \[start, end\], in seconds"):
        encode(row, 0)


def test_question_parts_put_the_visuals_in_front():
    turns = conversation("a <image> or <image>?", "b?", mark="")
    (first, _), (second, _) = question_parts(turns, 2)
    assert [turn["value"] for turn in first] == ["a <image> or <image>?", "yes 0"]
    assert [turn["value"] for turn in second] == ["<image><image>\nb?", "yes 1"]
    for bad in (turns[1:], turns[:3], []):
        with pytest.raises(DataError, match="take turns"):
            question_parts(bad, 2)


@pytest.mark.parametrize(
    ("history", "asked"),
    [
        (0, ["a", "b", "c", "d", "e"]),
        (1, ["a", "ab", "c", "cd", "e"]),
        (2, ["a", "ab", "abc", "d", "de"]),
        (9, ["a", "ab", "abc", "abcd", "abcde"]),
    ],
)
def test_history_puts_earlier_questions_in_front(history, asked):
    parts = question_parts(conversation(*"abcde"), 1, history)
    values = [[turn["value"] for turn in part.turns] for part in parts]
    letters = [[text.removeprefix("<image>").strip() for text in texts[::2]] for texts in values]
    assert letters == [list(letters) for letters in asked]
    assert all("<image>" in texts[0] and "<image>" not in "".join(texts[1:]) for texts in values)
    assert all(
        texts[1::2] == [f"yes {'abcde'.index(letter)}" for letter in some] for texts, some in zip(values, letters)
    )
    assert [part.num_context_turns for part in parts] == [2 * len(letters) - 2 for letters in asked]


@pytest.mark.parametrize("row", [ROWS["clip"][0], ROWS["memory"][0], ROWS["several images"][0]])
@pytest.mark.parametrize("history", [1, 2, 5])
def test_history_is_read_and_only_the_last_answer_is_learnt(row, history, processor, media):
    samples = RowEncoder(processor, media, questions="segments", history=history)(row, seed=1)
    alone = RowEncoder(processor, media, questions="segments")(row, seed=1)
    for number, (sample, single) in enumerate(zip(samples, alone, strict=True)):
        first = number - number % (history + 1)
        text = processor.decode(sample.input_ids[sample.input_ids != 511])
        assert [question in text for question in QUESTIONS] == [first <= k <= number for k in range(len(QUESTIONS))]
        assert [f"yes {k}" in text for k in range(len(QUESTIONS))] == [
            first <= k <= number for k in range(len(QUESTIONS))
        ]
        assert sample.labels[sample.labels != -100].tolist() == single.labels[single.labels != -100].tolist()
        last = int(np.flatnonzero(sample.labels != -100)[0])
        is_visual = sample.input_ids == 511
        assert (sample.is_prompt_text | is_visual)[:last].all()
    lengths = RowEncoder(processor, media, questions="segments", history=history).lengths(row)
    assert lengths[1:] == tokens_of(samples, 511)


def test_history_is_what_a_chat_shows(processor, media):
    row = ROWS["several images"][0]
    *_, sample = RowEncoder(processor, media, questions="segments", history=5)(row, seed=1)
    messages = []
    for number, question in enumerate(QUESTIONS):
        images = [{"type": "image", "image": image} for image in row["image"]] if not number else []
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": f"yes {number}"})
    asked = processor.encode(messages[:-1], add_generation_prompt=True, seed=1)
    length = len(asked.input_ids)
    assert sample.input_ids[:length].tolist() == asked.input_ids.tolist()
    assert sample.is_prompt_text[:length].tolist() == asked.is_prompt_text.tolist()
    assert processor.decode(sample.input_ids[length:]) == f"yes {len(QUESTIONS) - 1}"


def test_history_needs_questions_apart(processor, media):
    with pytest.raises(ConfigError, match="history is 2"):
        RowEncoder(processor, media, history=2)


def test_each_answer_of_a_history_has_its_own_evidence(encode):
    row = video_row("s/v.safetensors")
    turns = row["text"]["conversations"]
    for number, turn in enumerate(turns[1::2]):
        turn["evidence"] = [[number, number + 1]]
    encoder = RowEncoder(encode.processor, encode.media_root, questions="segments", history=5)
    alone = RowEncoder(encode.processor, encode.media_root, questions="segments")
    for sample, single in zip(encoder(row, 0), alone(row, 0), strict=True):
        assert sample.evidence is not None
        assert sample.evidence.tolist() == single.evidence.tolist()


def test_the_seed_decides_what_is_forgotten(encode):
    row = image_row(picture(60, 40))
    first, again, other = (encode(row, seed)[0].layout.kept_index for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        (video_row("s/wide.safetensors"), DataError, "width 32; the model needs .* width 24"),
        (video_row("s/wide.pt"), DataError, "width 32; the model needs .* width 24"),
        (video_row("s/empty.safetensors"), DataError, "0 bytes"),
        (video_row("s/empty.pt"), DataError, "0 bytes"),
        (video_row("s/cut.safetensors"), DataError, "cut short or damaged"),
        (video_row("s/cut.pt"), DataError, "damaged"),
        (video_row("s/gone.safetensors"), DataError, "gone.safetensors cannot be read .No such file"),
        (video_row("s/gone.mp4"), DataError, "gone.mp4 cannot be read .No such file"),
        (video_row("s/empty.mp4"), VideoError, "0 bytes"),
        (video_row("../media/s/clip.mp4"), DataError, "leads out"),
        (video_row("/etc/passwd"), DataError, "leads out"),
        (video_row(3), DataError, "must be a path"),
        ({"video": "s/clip.mp4", "text": {"id": "q"}}, DataError, "conversations"),
        ({"video": "s/clip.mp4", "text": {"conversations": ["hello"]}}, DataError, "a turn is"),
        ({"text": {"conversations": conversation("a")}}, DataError, "'video' or 'image'"),
        ({"video": "s/clip.mp4", "text": {"conversations": conversation("a", mark="")}}, InputError, "0 places"),
        ({"image": picture(4, 4), "text": {"conversations": conversation("a")}}, InputError, "1 places .* 0 images"),
        ({"image": b"no jpeg", "text": {"image": "a", "conversations": conversation("a")}}, DataError, "damaged"),
    ],
)  # fmt: skip
def test_bad_rows(row, error, words, encode):
    for use in (lambda: encode(row, 0), lambda: encode.lengths(row)):
        with pytest.raises(error, match=words) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_unknown_choice_for_questions(processor, tmp_path):
    with pytest.raises(ConfigError, match="conversation, segments"):
        RowEncoder(processor, tmp_path, questions="each")


def test_lengths_open_no_decoder(encode, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("decoded")

    monkeypatch.setattr(rows_module, "read_frames", never)
    monkeypatch.setattr(rows_module, "load_features", never)
    for row, num_views in ROWS.values():
        assert encode.lengths(row)[0] == num_views


# --- lengths of a whole data set


@pytest.fixture
def folder(tmp_path):
    rows = [ROWS["memory"][0], ROWS["released"][0], video_row("s/gone.pt"), ROWS["memory"][0]]
    return write(tmp_path / "shards", rows, size_limit_bytes=1200, hashes=["sha1"])


def test_lengths_are_measured_once(folder, encode, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lengths_module, "PIECE_ROWS", 2)
    dataset = MdsDataset(folder)
    expected = [encode.lengths(ROWS[name][0]) for name in ("memory", "released")]
    expected = [*expected, UNKNOWN, expected[0]]
    found = stream_lengths(dataset, encode, tmp_path / "cache", num_processes=1)
    assert found.dtype == np.int32
    assert found.tolist() == [list(row) for row in expected]
    assert "1 of 4 rows cannot be measured" in caplog.text
    assert "row 2: s/gone.pt cannot be read" in caplog.text
    measured = []
    monkeypatch.setattr(RowEncoder, "lengths", lambda self, row: measured.append(row["video"]) or (1, 2, 3))
    again = stream_lengths(dataset, encode, tmp_path / "cache", num_processes=1)
    assert measured == ["s/gone.pt"]
    assert again.tolist() == [*found[:2].tolist(), [1, 2, 3], found[3].tolist()]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]
    stream_lengths(dataset, encode, tmp_path / "cache", num_processes=1)
    other = RowEncoder(encode.processor, encode.media_root, questions="segments")
    stream_lengths(dataset, other, tmp_path / "cache", num_processes=1)
    assert len(measured) == 1 + 4


def test_measuring_goes_on_where_it_was_stopped(folder, encode, tmp_path, monkeypatch):
    monkeypatch.setattr(lengths_module, "PIECE_ROWS", 1)
    whole = stream_lengths(MdsDataset(folder), encode, tmp_path / "whole", num_processes=1)
    measured, real = [], RowEncoder.lengths

    def stop_at_the_third(self, row):
        measured.append(row["video"])
        if len(measured) == 3:
            raise KeyboardInterrupt
        return real(self, row)

    monkeypatch.setattr(RowEncoder, "lengths", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        stream_lengths(MdsDataset(folder), encode, tmp_path / "cut", num_processes=1)
    again = stream_lengths(MdsDataset(folder), encode, tmp_path / "cut", num_processes=1)
    assert again.tolist() == whole.tolist()
    assert len(measured) == 3 + 2


def test_copies_for_other_processes_measure_the_same(folder, encode):
    dataset = MdsDataset(folder)
    there, encode_there = pickle.loads(pickle.dumps((dataset, encode)))
    for number in (0, 1, 3):
        assert encode_there.lengths(there.row(number)) == encode.lengths(dataset.row(number))


@pytest.mark.slow
def test_processes_change_nothing(folder, encode, tmp_path, monkeypatch):
    monkeypatch.setattr(lengths_module, "PIECE_ROWS", 2)
    one = stream_lengths(MdsDataset(folder), encode, tmp_path / "a", num_processes=1)
    two = stream_lengths(MdsDataset(folder), encode, tmp_path / "b", num_processes=2)
    assert one.tolist() == two.tolist()


def test_lengths_of_image_shards(tmp_path, encode):
    columns = {"image": "list[jpeg]", "text": "json"}
    rows = [ROWS["several images"][0], ROWS["text among several"][0], image_row(picture(50, 30), many=True)]
    dataset = MdsDataset(write(tmp_path / "shards", rows, columns))
    expected = [list(encode.lengths(row)) for row in rows]
    assert stream_lengths(dataset, encode, tmp_path / "cache", num_processes=1).tolist() == expected
    assert [len(encode(row, 0)) for row in dataset] == [1, 1, 1]


def test_lengths_beside_the_shards_count_if_they_are_of_these_settings(tmp_path, encode):
    folder = write(tmp_path / "shards", [ROWS["memory"][0]] * 3, lengths=True)  # 1, 2, 3 for each row
    measured = [list(encode.lengths(ROWS["memory"][0]))] * 3
    dataset = MdsDataset(folder)
    assert stream_lengths(dataset, encode, tmp_path / "cache", num_processes=1).tolist() == measured
    (folder / "lengths.json").write_text(json.dumps(encode.settings))
    assert stream_lengths(dataset, encode, tmp_path / "cache", num_processes=1).tolist() == [[1, 2, 3]] * 3
    other = RowEncoder(encode.processor, encode.media_root, questions="segments")
    assert (
        stream_lengths(dataset, other, tmp_path / "cache", num_processes=1).tolist()
        == [list(other.lengths(ROWS["memory"][0]))] * 3
    )


@pytest.mark.parametrize("questions", ["conversation", "segments"])
@pytest.mark.parametrize("tiles", [1, 4])
@pytest.mark.parametrize(("before", "after"), [(0, 6), (6, 0), (6, 4)])
def test_lengths_for_other_recall_tokens_serve(
    before, after, tiles, questions, tokenizer, media, tmp_path, monkeypatch
):
    """Only images that may be tiled and texts that may be cut are measured again."""
    names = [name for name in ROWS if "video" in ROWS[name][0]]
    rows = [ROWS[name][0] for name in names] + [video_row("s/clip.mp4", "why? " * 60)]
    image_rows = [ROWS["several images"][0], ROWS["text among several"][0]]
    measuring, training = (
        RowEncoder(
            HourLlavaProcessor(
                tokenizer,
                tiny_config(
                    max_sequence_tokens=380,
                    max_image_tiles=tiles,
                    memaug=MemAugConfig(recall="question", recall_tokens=number) if number else MemAugConfig(),
                ),
            ),
            media,
            questions=questions,
        )
        for number in (before, after)
    )
    measured, measure = [], RowEncoder.lengths
    monkeypatch.setattr(RowEncoder, "lengths", lambda self, row: measured.append(row) or measure(self, row))
    for part, columns, least, most in (
        (rows, {"video": "str", "text": "json"}, 1, len(rows) - 4),
        (image_rows, {"image": "list[jpeg]", "text": "json"}, int(tiles > 1), int(tiles > 1)),
    ):
        folder = write(tmp_path / str(len(part)), part, columns)
        lengths_module.measure_folder(folder, measuring, num_processes=1)
        expected = [list(training.lengths(row)) for row in part]
        measured.clear()
        found = stream_lengths(MdsDataset(folder), training, tmp_path / "cache", num_processes=1)
        assert found.tolist() == expected
        assert least <= len(measured) <= most


def test_settings_tell_tokenizers_and_sizes_apart(tokenizer, media):
    def settings(**changes):
        return RowEncoder(HourLlavaProcessor(tokenizer, tiny_config(**changes)), media).settings

    assert settings() == settings()
    assert json.loads(json.dumps(settings())) == settings()
    encode = RowEncoder(HourLlavaProcessor(tokenizer, tiny_config()), media)
    encode(ROWS["memory"][0], 0)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=3)
    assert pickle.loads(pickle.dumps(encode)).settings == encode.settings == settings()
    assert settings(min_video_frames=9) != settings()
    assert settings(forgetting={"max_kept_frames": 3}) != settings()
    assert settings(forgetting={"temporal": "random"}) == settings()
