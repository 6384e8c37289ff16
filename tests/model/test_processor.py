"""The processor: places for visuals, layouts and pixels that belong together."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from conftest import GOLDEN, examples, tiny_config, tiny_model
from hourllava.errors import ConfigError, InputError
from hourllava.model.config import HourLlavaConfig
from hourllava.model.layout import num_kept_video_tokens, video_layout
from hourllava.model.messages import Video
from hourllava.model.nano import nano_tokenizer
from hourllava.model.processor import HourLlavaProcessor

FRAMES = np.random.default_rng(0).integers(0, 256, (9, 20, 30, 3), dtype=np.uint8)
PICTURE = Image.fromarray(FRAMES[0])


def ask(*visuals, text="What is it?"):
    return [{"role": "user", "content": [*visuals, {"type": "text", "text": text}]}]


def video(**kwargs):
    return {"type": "video", "video": Video(9.0, **(kwargs or {"frames": FRAMES}))}


def image(size=(30, 20)):
    return {"type": "image", "image": PICTURE.resize(size)}


def test_a_video_takes_as_many_places_as_its_layout_keeps(processor):
    inputs = processor([ask(video())], add_generation_prompt=True)
    is_visual = inputs["input_ids"] == processor.config.visual_token_id
    assert is_visual.sum() == num_kept_video_tokens(9, processor.config) == len(inputs["visuals"].input_index)
    assert torch.equal(is_visual.flatten().nonzero()[:, 0], inputs["visuals"].input_index)
    assert inputs["pixel_values_videos"].shape == (9, 3, 24, 24)
    assert "labels" not in inputs
    text = processor.tokenizer.decode(inputs["input_ids"][~is_visual])
    assert "user\n\nThe video lasts for 9.00 seconds, and 9 frames are uniformly sampled from it. " in text
    assert "related to this video.\nWhat is it?<|im_end|>" in text
    # MemAug reads all of the prompt.
    assert inputs["visuals"].query_segments.lengths == (inputs["input_ids"].shape[1],)


def test_in_training_answers_are_no_queries(processor):
    messages = [*ask(video()), {"role": "assistant", "content": "A dog."}]
    inputs = processor([messages])
    supervised = (inputs["labels"] != -100).flatten().nonzero()[:, 0]
    queries = set(inputs["visuals"].query_index.tolist())
    assert not queries & set(supervised.tolist())
    assert len(queries) == inputs["input_ids"].numel() - len(supervised)


def test_images_tiled_or_several(processor):
    one = processor([ask(image((60, 20)))], add_generation_prompt=True)
    assert one["pixel_values"].shape == (1 + 3, 3, 24, 24)
    several = processor([ask(image(), image((20, 30)))], add_generation_prompt=True)
    assert several["pixel_values"].shape == (2, 3, 24, 24)
    plain = HourLlavaProcessor(processor.tokenizer, tiny_config(max_image_tiles=1))
    assert plain([ask(image((60, 20)))])["pixel_values"].shape == (1, 3, 24, 24)


def test_text_only_needs_no_visuals(processor):
    inputs = processor([[{"role": "user", "content": "Hi"}]], add_generation_prompt=True)
    assert set(inputs) == {"input_ids", "attention_mask"}


def test_seeds_choose_what_is_forgotten(processor):
    first, again, other = (processor([ask(video())], seed=seed)["visuals"].kept_index for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_records_are_read_as_in_training(processor):
    record = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]
    sample = processor.encode_record(record, video=Video(9.0, frames=FRAMES))
    chat = processor.encode([*ask(video()), {"role": "assistant", "content": "A dog."}])
    np.testing.assert_array_equal(sample.input_ids, chat.input_ids)
    np.testing.assert_array_equal(sample.labels, chat.labels)
    pictures = processor.encode_record(
        [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "This."}], images=[PICTURE] * 2
    )
    assert len(pictures.layout.kept_per_visual) == 2


def test_text_around_a_video_is_that_of_the_whole_conversation(processor):
    first, *_ = ask(video(), text="What is it? <image> " * 5)
    for later in ([], [{"role": "assistant", "content": "A dog."}, {"role": "user", "content": "Why?"}]):
        before, behind = processor.encode_around_video([first, *later])
        sample = processor.encode([first, *later], add_generation_prompt=True)
        is_visual = sample.input_ids == processor.config.visual_token_id
        np.testing.assert_array_equal(sample.input_ids[~is_visual], [*before, *behind])
        assert np.flatnonzero(is_visual)[0] == len(before)


def test_a_question_longer_than_the_context(tokenizer):
    short = HourLlavaProcessor(tokenizer, tiny_config(max_sequence_tokens=150))
    with pytest.raises(InputError, match=r"the model takes 150\. Shorten the text"):
        short([ask(video(), text="why " * 100)], add_generation_prompt=True)
    record = [{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "so " * 100}]
    cut = short.encode_record(record, video=Video(9.0, frames=FRAMES))
    whole = HourLlavaProcessor(tokenizer, tiny_config()).encode_record(record, video=Video(9.0, frames=FRAMES))
    np.testing.assert_array_equal(cut.input_ids, whole.input_ids[:150])
    tiny = HourLlavaProcessor(tokenizer, tiny_config(max_sequence_tokens=20))
    with pytest.raises(InputError, match="of them visual; the model takes 20"):
        tiny.encode_record(record, video=Video(9.0, frames=FRAMES))


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        (ask(video(), video()), "2 videos, 0 images"),
        (ask(video(), image()), "1 videos, 1 images"),
        (ask({"type": "audio"}), "type 'audio'"),
        ([], "a conversation is a list of messages, at least one"),
        ([{"role": "tool", "content": "x"}], "message 0 has the role 'tool'; allowed are system"),
        ([{"role": None, "content": "x"}], "message 0 has the role None"),
        ([{"content": "x"}], "message 0 has the role None"),
        (["Hello"], "message 0 has the role None"),
        ([*ask(), {"role": "system", "content": "x"}], "message 1 has the role 'system'; .*first only"),
        ([{"role": "user", "content": None}], "message 0 has the content None; it must be a text, or a list"),
        ([{"role": "user"}], "message 0 has the content None"),
        ([{"role": "user", "content": 5}], "message 0 has the content 5"),
        ([{"role": "user", "content": ["x"]}], "content of type None"),
        (ask({"type": "text", "text": None}), "gives its text as NoneType; it must be builtins.str"),
        (ask({"type": "image", "image": "a.jpg"}), "gives its image as str; it must be PIL.Image.Image"),
        (ask({"type": "video", "video": "a.mp4"}), "gives its video as str; it must be .*Video"),
        ([{"role": "assistant", "content": [{"type": "image", "image": PICTURE}]}], "only the user shows something"),
    ],
)
def test_conversations_that_the_model_cannot_take(processor, messages, complaint):
    with pytest.raises(InputError, match=complaint):
        processor([messages])


@pytest.mark.parametrize("packed", [False, True])
def test_no_conversation(processor, packed):
    with pytest.raises(InputError, match="there is no conversation"):
        processor([], packed=packed)
    for wrong in ("Hello", ask(), {"role": "user", "content": "Hello"}):
        with pytest.raises(InputError, match="give a list of conversations, each of them a list of messages"):
            processor(wrong, packed=packed)


@pytest.mark.parametrize("record", [[], ["Hello"], [None], [{"from": "human", "value": None}], [{"from": "x"}]])
def test_records_that_are_none(processor, record):
    with pytest.raises(InputError, match="turn"):
        processor.encode_record(record)


HALF_PAIRS = st.integers(0xD800, 0xDFFF).map(chr)


@examples(25)
@given(st.text(max_size=80), HALF_PAIRS, st.text(max_size=20), st.sampled_from(["user", "assistant", "system"]))
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(processor, before, half, after, role):
    messages = [{"role": role, "content": before + half + after}, *ask()]
    with pytest.raises(InputError, match=rf"half a surrogate pair \(U\+{ord(half):04X}\) at character") as caught:
        processor.encode(messages)
    assert "\n" not in str(caught.value)
    record = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": before + half}]
    with pytest.raises(InputError, match="half a surrogate pair"):
        processor.encode_record(record)


@examples(60)
@given(st.text(max_size=80))
def test_every_text_of_whole_characters_is_taken(processor, text):
    assert len(processor.encode([{"role": "user", "content": text}]).input_ids) > 8


def test_an_answer_ends_with_its_turn_or_its_text_never_with_token_0(tokenizer):
    """A tokenizer without tokens for padding and for the end of a text has made the first of its words stop answers."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = bare.eos_token = None
    processor = HourLlavaProcessor(bare, tiny_config())
    assert (processor.pad_token_id, processor.stop_ids) == (end, (end,))
    own = copy.deepcopy(tokenizer)
    own.pad_token, own.eos_token = None, "!"
    processor = HourLlavaProcessor(own, tiny_config())
    mark = own.convert_tokens_to_ids("!")
    assert (processor.pad_token_id, set(processor.stop_ids)) == (mark, {mark, end})


def test_a_tokenizer_of_a_larger_vocabulary(tokenizer):
    small = tiny_config(text_config={**tiny_config().text_config.to_dict(), "vocab_size": 100})
    with pytest.raises(ConfigError, match=rf"has {len(tokenizer)} tokens but the decoder's vocabulary only 100 rows"):
        HourLlavaProcessor(tokenizer, small)


def test_records_whose_visuals_do_not_fit(processor):
    with pytest.raises(InputError, match="2 places for visuals, but 1 images and 0 videos"):
        processor.encode_record([{"from": "human", "value": "<image> <image>"}], images=[PICTURE])


@pytest.mark.parametrize("given", [{}, {"frames": FRAMES, "features": torch.zeros(9, 16, 24)}])
def test_a_video_is_given_in_one_way(given):
    with pytest.raises(InputError, match="one of the three"):
        Video(9.0, **given)


def test_a_video_without_frames():
    with pytest.raises(InputError, match="at least one frame"):
        Video(0.0, frames=FRAMES[:0])
    assert Video(9.0, layout=video_layout(9, tiny_config()), num_frames=9).num_frames == 9


def test_frames_and_features_do_not_mix(processor):
    both = [ask(video()), ask(video(features=torch.zeros(9, 16, 24)))]
    with pytest.raises(InputError, match="not both"):
        processor(both)


def test_save_load_and_auto_class(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, HourLlavaProcessor)
    expected, got = (p([ask(video())], add_generation_prompt=True)["input_ids"] for p in (processor, loaded))
    assert torch.equal(expected, got)


def test_a_saved_tokenizer_cuts_text_as_before(tmp_path):
    tokenizer = nano_tokenizer()
    HourLlavaProcessor(tokenizer, HourLlavaConfig.preset("hourllava-nano")).save_pretrained(tmp_path)
    loaded = HourLlavaProcessor.from_pretrained(tmp_path).tokenizer
    text = "In the race in the bay, where was the green star at 0:10? 12345\n\nThe  end."
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_released_folder(tmp_path):
    for source in (GOLDEN / "tiny_pixels", GOLDEN / "chat" / "tokenizer"):
        for path in source.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    processor = HourLlavaProcessor.from_pretrained(tmp_path)
    assert processor.config.visual_token_id == 511
    assert processor.config.patch_grid == 27


def test_inputs_move_as_a_whole(processor):
    inputs = processor([ask(video(features=torch.zeros(9, 16, 24)))])
    moved = inputs.to("meta")
    assert moved is inputs
    devices = {
        inputs["input_ids"].device,
        inputs["visuals"].memory_index.device,
        inputs["mm_encoder_outputs"]["video"].pooler_output.device,
    }
    assert devices == {torch.device("meta")}
    assert inputs["visuals"].memory_segments.lengths == (9 * 17,)


def test_answers_are_decoded_without_special_tokens(processor):
    ids = processor.tokenizer("A red ball.<|im_end|>").input_ids
    assert processor.decode(ids) == "A red ball."


def test_from_messages_to_an_answer(processor):
    """The docstring's example, end to end."""
    model = tiny_model().float()
    inputs = processor([ask(video())], add_generation_prompt=True)
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=401)
    prompt = inputs["input_ids"].shape[1]
    assert output.shape == (1, prompt + 4)
    assert processor.decode(output[0, prompt:]) == processor.tokenizer.decode(output[0, prompt:]).strip()
