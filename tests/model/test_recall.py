"""Recall tokens (`memaug.recall: question`): kept tokens are the same for every question, and the rest is as ever."""

import json
import shutil

import numpy as np
import pytest
import torch

from conftest import tiny_config, tiny_model
from hourllava.errors import CheckpointError, ConfigError
from hourllava.model.checkpoint import load_config, load_model, save_weights
from hourllava.model.config import ForgettingConfig, HourLlavaConfig, MemAugConfig
from hourllava.model.layout import image_layout, tiled_image_layout, video_layout
from hourllava.model.messages import Video
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.queries import query_layout
from hourllava.model.released import RECALL_TOKENS, flat_config
from hourllava.model.visuals import Visuals
from model.test_modeling import EXACT, conversations, features, generate, images, logits, video_messages

QUESTIONS = ["What happens?", "Who sleeps on the sofa, and when?"]
SEEN = 1e-8
"""Another question changes some number by more than this; rounding changes all by less than a thousandth of it."""


def recalling(num_tokens=3, **more):
    return tiny_config(memaug=MemAugConfig(recall="question", recall_tokens=num_tokens), **more)


@pytest.fixture(scope="module", params=[0, 1, 5])
def pair(request, tokenizer):
    """A model with so many recall tokens, and its processor."""
    config = recalling(request.param)
    return tiny_model(config), HourLlavaProcessor(tokenizer, config)


def embedded(model, processor, question, prior=()):
    """The prompt's embeddings, and which of them are visual."""
    messages = video_messages(Video(31.0, features=features(31)), question, None)
    inputs = processor([[*messages, *prior]], add_generation_prompt=True)
    is_visual = inputs["input_ids"][0] == processor.config.visual_token_id
    with torch.no_grad():
        return model.model.embed(inputs["input_ids"], Visuals.take_from(inputs))[0], is_visual


def test_kept_tokens_are_the_same_for_every_question_and_recall_tokens_are_not(pair):
    model, processor = pair
    num_recall, num_kept = model.config.memaug.num_recall_tokens, len(video_layout(31, model.config).kept_index)
    visual = []
    for question in ("a b c?", "c b a?", *QUESTIONS):
        embeds, is_visual = embedded(model, processor, question)
        places = torch.where(is_visual)[0].tolist()
        assert places == [*range(places[0], places[0] + num_kept + num_recall)]  # before all text of the turn
        visual.append(embeds[places])
    lengths = [len(processor.tokenizer(question).input_ids) for question in ("a b c?", "c b a?")]
    assert lengths[0] == lengths[1]
    assert torch.equal(visual[0][:num_kept], visual[1][:num_kept])  # products of the same sizes: not a bit differs
    torch.testing.assert_close(visual[3][:num_kept], visual[0][:num_kept], **EXACT)
    for recall in (visual[1][num_kept:], visual[3][num_kept:]) if num_recall else ():
        assert (recall - visual[0][num_kept:]).abs().max() > SEEN


def test_in_the_published_way_kept_tokens_differ(model, processor):
    (first, places), (second, _) = (embedded(model, processor, question) for question in ("What?", "Whom?"))
    assert (first[places] - second[: len(first)][places]).abs().max() > SEEN


def test_recall_tokens_see_earlier_turns(tokenizer):
    config = recalling()
    model, processor = tiny_model(config), HourLlavaProcessor(tokenizer, config)
    turns = [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Where?"}]
    others = [{"role": "assistant", "content": "A dog."}, {"role": "user", "content": "Where?"}]
    (first, places), (second, _) = (embedded(model, processor, "What?", prior) for prior in (turns, others))
    kept, recall = torch.where(places)[0].split([int(places.sum()) - 3, 3])
    torch.testing.assert_close(second[kept], first[kept], **EXACT)
    assert (second[recall] - first[recall]).abs().max() > SEEN


def test_padded_packed_and_single_samples_give_the_same_logits(pair):
    model, processor = pair
    mixed = [*conversations(), images(1), images(2)]
    packed = processor(mixed, packed=True)
    lengths = packed["segments"].lengths
    padded_logits = logits(model, processor(mixed))
    for row, (conversation, part) in enumerate(zip(mixed, logits(model, packed)[0].split(lengths))):
        expected = logits(model, processor([conversation]))[0]
        torch.testing.assert_close(part, expected, **EXACT)
        torch.testing.assert_close(padded_logits[row, : lengths[row]], expected, **EXACT)


def test_questions_about_one_memory_augment_its_kept_tokens_once(tokenizer):
    config = recalling(4)
    processor = HourLlavaProcessor(tokenizer, config)
    layout, other = video_layout(31, config), video_layout(31, config, seed=1)
    shown = [(layout, "What?"), (layout, "Who sleeps?"), (other, "What?")]
    batch = processor(
        [video_messages(Video(31.0, layout=one, num_frames=31), text, None) for one, text in shown],
        add_generation_prompt=True,
    )["visuals"]
    kept = len(layout.kept_index)
    lengths = batch.query_segments.lengths
    assert lengths[0] == lengths[3] == kept
    assert len(lengths) == 5
    assert batch.recall.seen_segments.lengths == (kept, kept + lengths[1], kept + lengths[2], kept, kept + lengths[4])
    assert batch.recall_segments.lengths == (sum(lengths[:3]), kept + lengths[4])
    assert torch.equal(batch.visual_query_index[:kept], batch.visual_query_index[kept : 2 * kept])
    seen = batch.recall.seen_index.split(batch.recall.seen_segments.lengths)
    assert seen[2].tolist() == [*range(kept), *range(kept + lengths[1], kept + lengths[1] + lengths[2])]
    assert len(batch.recall.query_index) == 3 * 4
    assert torch.equal(batch.watching_query_index, batch.recall.query_index)


def test_generate_with_cache_and_without_it(pair):
    model, processor = pair
    inputs = processor([conversations(None)[0]], add_generation_prompt=True)
    assert torch.equal(generate(model, inputs, use_cache=False), generate(model, inputs))


def test_every_parameter_learns_also_from_a_batch_of_text(pair):
    _, processor = pair
    model = tiny_model(processor.config).train()
    for mixed in (conversations(), [conversations()[1]]):
        model.zero_grad()
        model(**processor(mixed, packed=True)).loss.backward()
        without = [name for name, p in model.named_parameters() if p.grad is None and "vision_tower" not in name]
        assert not without
    model.zero_grad()
    model(**processor(conversations(), packed=True)).loss.backward()
    if model.model.memaug.recall_tokens is not None:
        assert model.model.memaug.recall_tokens.grad.norm(dim=1).min() > 0


LAYOUTS = {
    "video": lambda config: video_layout(31, config),
    "images": lambda config: image_layout(3, config),
    "tiles": lambda config: tiled_image_layout(70, 45, config),
}


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("num_tokens", [0, 1, 7])
def test_recall_tokens_stand_in_the_memory_and_text_behind_all(kind, num_tokens):
    layout = LAYOUTS[kind](recalling(num_tokens))
    published = LAYOUTS[kind](tiny_config())
    np.testing.assert_array_equal(layout.kept_index, published.kept_index)
    assert layout.num_visual_tokens == len(layout.kept_index) + num_tokens
    assert published.num_recall_tokens == 0
    assert layout.tokens_per_visual[:-1] == published.tokens_per_visual[:-1]
    assert set(layout.recall_positions) <= set(layout.memory_positions)
    # Two texts, the visuals with a text between two of them, two texts.
    is_visual = [False, False]
    for number in layout.tokens_per_visual:
        is_visual += [True] * number + [False]
    is_visual = np.array([*is_visual, False])
    index, positions = query_layout(is_visual, ~is_visual, layout)
    assert index.tolist() == [*range(len(is_visual))]
    visual = positions[is_visual]
    without = is_visual.copy()
    without[np.flatnonzero(is_visual)[len(layout.kept_index) :]] = False
    keeps = without | ~is_visual
    _, expected = query_layout(is_visual[keeps], ~is_visual[keeps], published)
    np.testing.assert_array_equal(visual[: len(layout.kept_index)], expected[is_visual[keeps]])
    shift = visual[len(layout.kept_index) - 1] - layout.kept_positions[-1]
    np.testing.assert_array_equal(visual[len(layout.kept_index) :], shift + layout.recall_positions)
    assert positions[-2] == max(visual.max(), positions[-3]) + 1
    assert positions[-1] == positions[-2] + 1


# ------------------------------------------------------------------------------------------ checkpoints


def saved(config, folder):
    folder.mkdir()
    model = tiny_model(config).float()
    save_weights(config, model.state_dict(), folder)
    return model


def test_a_checkpoint_is_written_and_loaded(tmp_path, tokenizer):
    config = recalling(4)
    model = saved(config, tmp_path / "own")
    loaded, report = load_model(tmp_path / "own")
    assert not report.fresh
    assert not report.unexpected
    assert loaded.config.memaug == config.memaug
    assert torch.equal(loaded.model.memaug.recall_tokens, model.model.memaug.recall_tokens)
    model.save_pretrained(tmp_path / "theirs")
    theirs = HourLlavaForConditionalGeneration.from_pretrained(tmp_path / "theirs")
    inputs = HourLlavaProcessor(tokenizer, config)([conversations()[0]])
    torch.testing.assert_close(logits(theirs, inputs), logits(loaded, inputs), atol=0, rtol=0)


def test_a_published_checkpoint_does_not_mention_recall_and_opens_with_new_recall_tokens(tmp_path):
    saved(tiny_config(), tmp_path / "kept")
    written = json.loads((tmp_path / "kept/config.json").read_text())
    assert sorted(written["memaug"]) == [
        "mlp_ratio", "normalize_inputs", "num_blocks", "rope_theta", "rotary_fraction", "rotate_values",
    ]  # fmt: skip
    assert load_config(tmp_path / "kept").memaug.recall == "kept"
    model, report = load_model(tmp_path / "kept", config=recalling(4))
    assert report.fresh == (RECALL_TOKENS,)
    assert torch.equal(model.model.memaug.recall_tokens, model.model.image_newline.expand(4, -1))
    again, report = load_model(tmp_path / "kept", config=recalling(4), fresh_memaug=True)
    assert RECALL_TOKENS in report.fresh
    assert torch.equal(again.model.memaug.recall_tokens, again.model.image_newline.expand(4, -1))
    _, none = load_model(tmp_path / "kept", config=recalling(0))
    assert not none.fresh


def test_recall_tokens_that_are_missing_or_of_another_number_are_told(tmp_path):
    config = recalling(4)
    model = saved(config, tmp_path / "whole")
    _, report = load_model(tmp_path / "whole", config=tiny_config())
    assert report.unexpected == (RECALL_TOKENS,)
    with pytest.raises(CheckpointError, match=r"recall_tokens has shape \[4, 32\].*makes it \[5, 32\]"):
        load_model(tmp_path / "whole", config=recalling(5))
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    state = {name: tensor for name, tensor in model.state_dict().items() if name != RECALL_TOKENS}
    save_weights(config, state, tmp_path / "damaged")
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors, first model\.memaug\.recall_tokens"):
        load_model(tmp_path / "damaged")


def test_the_released_layout_cannot_say_it():
    flat_config(HourLlavaConfig.preset("hourllava-3b"), torch.float32)
    with pytest.raises(CheckpointError, match="cannot say that memaug is"):
        flat_config(HourLlavaConfig.preset("hourllava-3b", memaug={"recall": "question"}), torch.float32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memaug": {"recall": "both"}}, "memaug.recall is 'both'"),
        ({"memaug": {"recall": "question", "recall_tokens": -1}}, "memaug.recall_tokens is -1"),
        ({"memaug": {"recall": "question", "num_blocks": 0}}, "memaug.num_blocks is 0"),
        ({"memaug": {"recall": "question"}, "forgetting": {"temporal": "question"}}, "chooses others for each"),
    ],
)
def test_configurations_that_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        HourLlavaConfig(**{**tiny_config().to_dict(), **fields})


def test_a_configuration_says_what_it_was_given():
    config = recalling(4, forgetting=ForgettingConfig(temporal="keyframe"))
    again = HourLlavaConfig(**config.to_dict())
    assert again.memaug == config.memaug
    assert again.memaug.num_recall_tokens == 4
    assert tiny_config().memaug.num_recall_tokens == 0
