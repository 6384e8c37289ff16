"""Costs from lengths agree with what torch counts while the model runs."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conftest import tiny_config, tiny_model
from hourllava.data.batches.cost import (
    TrainedParts,
    check_lengths,
    estimate_costs,
    kept_again,
    memory_entries,
    questions_apart,
)
from hourllava.errors import DataError
from hourllava.model import attention
from hourllava.model.config import HourLlavaConfig, MemAugConfig
from hourllava.model.layout import image_layout, tiled_image_layout, video_layout
from hourllava.model.messages import Video
from hourllava.model.processor import HourLlavaProcessor

QUESTION = "Which colour does the third box have, and what happens to it after the music stops? " * 6
ANSWER = "It is red, and it slides to the left until it leaves the picture. " * 6


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def visuals(kind, config):
    if kind == "frames":
        return {"video": Video(30.0, frames=torch.randint(256, (30, 24, 24, 3), dtype=torch.uint8))}
    if kind == "features":
        return {"video": Video(90.0, features=torch.randn(90, 16, 24))}
    if kind == "tiles":
        return {"images": [picture(72, 48)]}
    if kind == "pictures":
        return {"images": [picture(24, 24)] * 3}
    return {}


PARTS = ("vision_tower", "multi_modal_projector", "memaug", "language_model")
STAGES = {
    "stage 1": TrainedParts(projector=False, language_model=False),
    "stage 2": TrainedParts(vision_tower=True),
    "stage 3": TrainedParts(),
}


KINDS = ("frames", "features", "tiles", "pictures", "text")
QUICK = {("tiles", "stage 3", False), ("frames", "stage 2", False), ("frames", "stage 3", True)}
RUNS = [("stage 1", False), ("stage 2", False), ("stage 3", False), ("stage 3", True)]


@pytest.mark.parametrize(
    ("kind", "stage", "checkpointing"),
    # Text trains nothing in stage 1: there is no backward pass to count.
    [
        pytest.param(kind, *run, marks=() if (kind, *run) in QUICK else pytest.mark.slow)
        for kind in KINDS
        for run in RUNS
        if (kind, run[0]) != ("text", "stage 1")
    ],
)
def test_matches_counted_operations(kind, stage, checkpointing, processor, monkeypatch):
    monkeypatch.setattr(attention, "CPU_BLOCKS", {})  # queries that are filled up would be counted, too
    trained = STAGES[stage]
    model = tiny_model().train()
    if checkpointing:
        # transformers 5.23 gave it a new name
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    for part, is_trained in zip(PARTS, dataclasses.astuple(trained)):
        getattr(model.model, part).requires_grad_(is_trained)
    model.lm_head.requires_grad_(trained.language_model)
    model.model.image_newline.requires_grad_(trained.projector)

    given = visuals(kind, processor.config)
    marks = "<image>" * (len(given.get("images", ())) or bool(given))
    conversation = [{"from": "human", "value": f"{marks}\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}]
    sample = processor.encode_record(conversation, **given)
    batch = processor.collate_packed([sample])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()

    views = sample.layout.num_patch_tokens // (16 if "video" in given else 36) if sample.layout else 0
    kept = len(sample.layout.kept_index) if sample.layout else 0
    text = len(sample.input_ids) - kept
    costs = estimate_costs(
        np.array([[views, kept, text]], np.int32),
        processor.config,
        is_video="video" in given,
        encoded=kind == "features",
        trained=trained,
        checkpointing=checkpointing,
        supervised_share=(sample.labels != -100).sum() / text,
    )
    # The reference attention computes both halves of the causal square; the kernels of a GPU only one.
    expected = costs.total[0] + costs.decoder_attention[0]
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.05 if checkpointing else 0.01)
    assert costs.decoder_attention[0] > 0.05 * expected


@pytest.mark.parametrize("kind", ["frames", pytest.param("pictures", marks=pytest.mark.slow)])
@pytest.mark.parametrize("memaug", [{}, {"recall": "question", "recall_tokens": 9}])
def test_questions_apart_see_the_video_but_not_each_other(kind, memaug, tokenizer, monkeypatch):
    monkeypatch.setattr(attention, "CPU_BLOCKS", {})  # as above
    config = tiny_config(memaug=MemAugConfig(**memaug))
    model, processor = tiny_model(config).train(), HourLlavaProcessor(tokenizer, config)
    given = visuals(kind, config)
    marks = "<image>" * (len(given.get("images", ())) or 1)
    turns = [{"from": "human", "value": f"{marks}\n{QUESTION}"}, {"from": "gpt", "value": ANSWER}]
    first = processor.encode_record(turns, **given)
    shared = (
        {"video": Video(30.0, layout=first.layout, num_frames=30)} if kind == "frames" else {"layout": first.layout}
    )
    samples = [first, processor.encode_record(turns, **shared)]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**(inputs := processor.collate_packed(samples))).loss.backward()

    kept = 2 * first.layout.num_visual_tokens
    text = sum(len(sample.input_ids) for sample in samples) - kept
    lengths = np.array([[30 if kind == "frames" else 3, kept, text]], np.int32)
    questions = questions_apart(lengths, config, is_video=kind == "frames")
    assert questions.tolist() == [2]
    supervised = sum((sample.labels != -100).sum() for sample in samples)
    num_queries = kept + text - supervised - kept_again(lengths, config, questions)
    assert num_queries.tolist() == [len(inputs["visuals"].query_index)]
    costs = estimate_costs(
        lengths,
        config,
        is_video=kind == "frames",
        num_questions=questions,
        trained=STAGES["stage 2"],
        checkpointing=False,
        supervised_share=(first.labels != -100).mean() * 2 * len(first.labels) / text,
    )
    expected = costs.total[0] + costs.decoder_attention[0]
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("num_frames", [1, 5, 8, 9, 400])
def test_memory_of_videos_is_exact(num_frames):
    config = tiny_config()
    layout = video_layout(num_frames, config)
    lengths = np.array([[num_frames, len(layout.kept_index), 10]], np.int32)
    assert memory_entries(lengths, config, is_video=True).tolist() == [len(layout.memory_index)]


def test_memory_of_pictures_is_exact():
    config = HourLlavaConfig.preset("hourllava-7b")
    layout = image_layout(3, config)
    lengths = np.array([[3, len(layout.kept_index), 10]], np.int32)
    assert memory_entries(lengths, config, is_video=False).tolist() == [len(layout.memory_index)]


@pytest.mark.parametrize("size", [(336, 336), (640, 480), (1600, 1200), (3000, 300)])
def test_memory_of_tiled_images_is_near(size):
    config = HourLlavaConfig.preset("hourllava-7b")
    layout = tiled_image_layout(*size, config)
    lengths = np.array([[layout.num_patch_tokens // 27**2, len(layout.kept_index), 10]], np.int32)
    estimate = memory_entries(lengths, config, is_video=False)[0]
    assert len(layout.memory_index) * 0.98 <= estimate <= len(layout.memory_index) * 1.06


def test_an_hour_costs_more_per_token_than_text():
    config = HourLlavaConfig.preset("hourllava-7b")
    lengths = np.array([[3600, 8704, 500], [0, 0, 500]], np.int32)
    is_video = np.array([True, False])
    costs = estimate_costs(lengths, config, is_video=is_video, encoded=is_video)
    per_token = costs.total / lengths[:, 1:].sum(axis=1)
    assert per_token[0] > 2 * per_token[1]
    assert costs.memaug_cross_attention[1] == costs.projector[1] == costs.vision_tower.max() == 0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (np.zeros((3, 2), np.int32), r"got int32 \[3, 2\]"),
        (np.ones((3, 3)), "got float64"),
        (np.array([[1, 1, 1], [1, -1, 4]]), r"sample 1 has \[1, -1, 4\]"),
        (np.array([[7, 0, 0]]), r"sample 0 has \[7, 0, 0\]"),
    ],
)
def test_bad_lengths_are_refused(lengths, message):
    with pytest.raises(DataError, match=message):
        check_lengths(lengths, "shards/0")
