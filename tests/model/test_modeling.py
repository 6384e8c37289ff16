"""The whole model: however samples are put together, however it is run, the numbers are the same."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from conftest import tiny_config, tiny_model
from hourllava.errors import InputError
from hourllava.inference.memories.key_values import KeyValueRoom
from hourllava.model import head
from hourllava.model.config import ForgettingConfig, HourLlavaConfig, MemAugConfig
from hourllava.model.inputs import _visual_inputs
from hourllava.model.layout import num_kept_video_tokens, video_layout
from hourllava.model.memaug import ProjectedMemory
from hourllava.model.messages import Video
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.trunk import HourLlavaModel
from hourllava.model.visuals import Visuals
from hourllava.training.answer_tokens import answer_weights

EXACT = {"atol": 1e-9, "rtol": 1e-9}
BF16_ERROR = 0.1


def features(num_frames, seed=0):
    return torch.randn(num_frames, 16, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frames(num_frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 30, 40, 3), generator=generator, dtype=torch.uint8)


def video_messages(video, question="What happens?", answer="A cat sleeps."):
    user = {"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": question}]}
    return [user] + ([{"role": "assistant", "content": answer}] if answer else [])


def conversations(answer="A cat sleeps."):
    """A video, a text, and again a video: of different lengths."""
    text = [{"role": "user", "content": "Name a colour."}] + (
        [{"role": "assistant", "content": "Blue"}] if answer else []
    )
    return [
        video_messages(Video(10.0, features=features(10)), answer=answer),
        text,
        video_messages(Video(31.5, features=features(31, seed=1)), "And then, what comes after that?", answer),
    ]


def images(num_images):
    shades = torch.arange(90 * 50 * 3, dtype=torch.uint8).view(50, 90, 3)
    pictures = [Image.fromarray((shades + 40 * n).numpy()) for n in range(num_images)]
    content = [{"type": "image", "image": picture} for picture in pictures]
    user = {"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}
    return [user, {"role": "assistant", "content": "Stripes."}]


@torch.no_grad()
def logits(model, inputs):
    return model(**{key: value for key, value in inputs.items() if key != "labels"}).logits


def test_padded_packed_and_single_samples_give_the_same_logits_and_loss(model, processor):
    mixed = [*conversations(), images(1), images(2)]
    padded, packed = processor(mixed), processor(mixed, packed=True)
    padded_logits, packed_logits = logits(model, padded), logits(model, packed)[0]
    lengths = packed["segments"].lengths
    total_loss, total_tokens = 0.0, 0
    for row, (conversation, part) in enumerate(zip(mixed, packed_logits.split(lengths))):
        single = processor([conversation])
        expected = logits(model, single)[0]
        torch.testing.assert_close(part, expected, **EXACT)
        torch.testing.assert_close(padded_logits[row, : lengths[row]], expected, **EXACT)
        supervised = (single["labels"] != -100).sum()
        total_loss += model(**single).loss * supervised
        total_tokens += supervised
    torch.testing.assert_close(model(**padded).loss, total_loss / total_tokens, **EXACT)
    torch.testing.assert_close(model(**packed).loss, total_loss / total_tokens, **EXACT)


def test_no_sample_predicts_what_the_next_one_begins_with(model, processor):
    encoded = [processor.encode(conversation) for conversation in conversations()]
    samples = [dataclasses.replace(sample, labels=sample.input_ids) for sample in encoded]
    singles = [model(**processor.collate([sample])).loss for sample in samples]
    lengths = torch.tensor([len(sample.labels) - 1 for sample in samples])  # nothing predicts the first token
    expected = (torch.stack(singles) * lengths).sum() / lengths.sum()
    torch.testing.assert_close(model(**processor.collate_packed(samples)).loss, expected, **EXACT)


def test_loss_is_the_cross_entropy_of_all_logits(model, processor):
    for packed in (False, True):
        inputs = processor(conversations(), packed=packed)
        all_logits = logits(model, inputs)[:, :-1]
        targets = inputs["labels"][:, 1:].clone()
        if packed:  # nothing is predicted across samples
            targets[0, [end - 1 for end in inputs["segments"].offsets[1:-1]]] = -100
        expected = F.cross_entropy(all_logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        torch.testing.assert_close(model(**inputs).loss, expected, **EXACT)


def test_loss_never_makes_more_logits_than_a_chunk(model, processor, monkeypatch):
    inputs = processor(conversations())
    expected = model(**inputs).loss
    rows = []
    linear = F.linear
    monkeypatch.setattr(head, "LOSS_CHUNK_LOGITS", 3 * model.lm_head.out_features)
    monkeypatch.setattr(
        F, "linear", lambda x, w, b=None: (rows.append(len(x)) if len(w) == 512 else None, linear(x, w, b))[1]
    )
    loss = model(**inputs).loss
    torch.testing.assert_close(loss, expected, **EXACT)
    assert len(rows) > 3
    assert max(rows) == 3


def test_loss_of_a_part_of_a_larger_batch(model, processor):
    inputs = processor(conversations())
    count = (inputs["labels"] != -100).sum()
    loss = model(**inputs).loss
    torch.testing.assert_close(model(**inputs, num_items_in_batch=4 * count).loss, loss / 4, **EXACT)
    assert model(**{**inputs, "labels": torch.full_like(inputs["labels"], -100)}).loss == 0


def test_the_weight_of_an_answer_follows_from_its_length(model, processor):
    """The mean over answers of each answer's mean loss, from samples one at a time; and the square root between."""
    mixed = conversations()
    packed = processor(mixed, packed=True)
    singles = [processor([conversation]) for conversation in mixed]
    lengths = torch.tensor([int((single["labels"] != -100).sum()) for single in singles])
    assert len(set(lengths.tolist())) > 1
    losses = torch.stack([model(**single).loss for single in singles])
    for power, weights in ((0.0, lengths), (0.5, lengths.sqrt()), (1.0, torch.ones(3))):
        label_weights = answer_weights(packed["labels"], power)
        expected = (losses * weights).sum() / weights.sum()
        loss = model(**packed, label_weights=label_weights).loss
        torch.testing.assert_close(loss, expected, atol=0, rtol=1e-6)  # the weights are float32
    assert not answer_weights(torch.full((1, 5), -100), 1.0).any()


def test_pixels_and_their_features_are_the_same(model, processor):
    pixels = processor([video_messages(Video(9.0, frames=frames(9)))])
    with torch.no_grad():
        encoded = model.model.get_video_features(pixels["pixel_values_videos"]).pooler_output
    assert encoded.shape == (9, 16, 24)
    given = processor([video_messages(Video(9.0, features=encoded))])
    torch.testing.assert_close(logits(model, given), logits(model, pixels), **EXACT)


def repeated(*times, seed=0):
    """Frames of which the k-th stays for times[k] seconds."""
    return frames(len(times), seed).repeat_interleave(torch.tensor(times), dim=0)


@pytest.mark.parametrize("memaug", [{}, {"recall": "question", "recall_tokens": 3}])
@pytest.mark.parametrize(
    "videos",
    [
        [repeated(1, 4, 2, 1, 3)],
        [repeated(12)],
        [repeated(1, 1, 1)],  # fewer frames than a memory has
        [repeated(2, 1)],
        [repeated(3, 5, 1), repeated(*[1] * 11, seed=1), repeated(7, 2, seed=2)],
        [repeated(1, 4, 1)[[0, 1, 2, 5, 1, 2]]],  # a picture that comes back
    ],
    ids=lambda videos: "-".join(str(len(video)) for video in videos),
)
def test_a_frame_that_stays_is_encoded_once_and_counts_as_often_as_it_is_there(videos, memaug, tokenizer):
    """Loss and every gradient are those of all frames one by one; two questions share each memory."""
    config = tiny_config(memaug=MemAugConfig(**memaug))
    processor, model = HourLlavaProcessor(tokenizer, config), tiny_model(config).double().train()
    samples = []
    for video in videos:
        shown = Video(float(len(video)), frames=video)
        samples.append(processor.encode(video_messages(shown)))
        again = Video(float(len(video)), layout=samples[-1].layout, num_frames=len(video))
        samples.append(processor.encode(video_messages(again, "Who sleeps there?", "Nobody.")))
    packed = processor.collate_packed(samples)
    num_pictures = sum(1 + int((video[1:] != video[:-1]).flatten(1).any(1).sum()) for video in videos)
    assert len(packed["pixel_values_videos"]) == num_pictures
    assert len(packed["visuals"].memory_segments.lengths) == len(videos)

    def results(inputs):
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    every_frame = processor.collate_packed(samples) | _visual_inputs(
        samples, packed["segments"].offsets, config.visual_token_id
    )
    assert len(every_frame["pixel_values_videos"]) == sum(map(len, videos))
    for once, each in zip(results(packed), results(every_frame), strict=True):
        torch.testing.assert_close(once, each, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize("entries_per_chunk", [None, 50])
def test_a_memory_made_before_gives_the_same(model, processor, entries_per_chunk):
    given = processor([conversations()[2]])
    visuals = given["visuals"]
    with torch.no_grad():
        shown = Visuals(visuals, features={"video": given["mm_encoder_outputs"]["video"].pooler_output})
        if entries_per_chunk is None:
            memory = model.model.remember(shown)
        else:
            room = KeyValueRoom(entries_per_chunk)
            for start in range(0, 31 * 17, 40):
                room.append(model.model.keys_values(shown, slice(start, min(start + 40, 31 * 17))))
            memory = ProjectedMemory(room.first(31 * 17), model.model.kept_tokens(shown))
    assert len(memory.keys_values[0].keys) == (1 if entries_per_chunk is None else 11)
    assert memory.keys_values[0].num_entries == 31 * 17
    assert memory.keys_values[0].num_bytes == 2 * 31 * 17 * 2 * 8 * 8
    out = logits(model, {"input_ids": given["input_ids"], "visuals": visuals, "memory": memory})
    torch.testing.assert_close(out, logits(model, given), **EXACT)


def test_questions_about_one_video_share_its_memory(model, processor):
    layout = video_layout(31, processor.config)
    questions = ["What happens?", "Who sleeps on the sofa, and when?", "Why?"]
    shared = [video_messages(Video(31.0, layout=layout, num_frames=31), q, None) for q in questions]
    alone = [video_messages(Video(31.0, features=features(31)), q, None) for q in questions]
    together = processor(shared, add_generation_prompt=True)
    assert together["visuals"].memory_segments.lengths == (31 * 17,)
    with torch.no_grad():
        memory = model.model.remember(Visuals(together["visuals"], features={"video": features(31)}))
    out = logits(model, {**together, "memory": memory})
    for row, messages in enumerate(alone):
        expected = logits(model, processor([messages], add_generation_prompt=True))[0]
        # Padded on the left, the decoder's float32 angles are those of larger positions.
        torch.testing.assert_close(out[row, -expected.shape[0] :], expected, atol=1e-5, rtol=1e-3)


def generate(model, inputs, **kwargs):
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 401}
    return model.generate(**inputs, **{**options, **kwargs})[:, inputs["input_ids"].shape[1] :]


def test_generate_with_cache_without_it_and_by_hand(model, processor):
    inputs = processor([conversations(None)[0]], add_generation_prompt=True)
    cached = generate(model, inputs)
    assert cached.shape == (1, 8)
    assert torch.equal(generate(model, inputs, use_cache=False), cached)
    embeds = model.model.embed(inputs["input_ids"], Visuals.take_from(dict(inputs)))
    for expected in cached[0]:
        token = model(inputs_embeds=embeds).logits[0, -1].argmax()
        assert token == expected
        embeds = torch.cat([embeds, model.get_input_embeddings()(token.view(1, 1))], dim=1)


def test_generate_for_a_batch_equals_one_at_a_time(model, processor):
    together = generate(model, processor(conversations(None), add_generation_prompt=True))
    for row, conversation in enumerate(conversations(None)):
        alone = generate(model, processor([conversation], add_generation_prompt=True))
        assert torch.equal(together[row : row + 1], alone)


def test_a_generated_token_is_text_even_where_it_has_the_id_of_visual_tokens(model, processor):
    """A vocabulary may be full: SmolLM2 has a word in its last row."""
    always = copy.deepcopy(model)
    for parameter in always.lm_head.parameters():
        torch.nn.init.zeros_(parameter)
    always.lm_head.weight.data[always.config.visual_token_id] = 1.0
    always.model.language_model.norm.register_forward_hook(lambda module, args, output: torch.ones_like(output))
    inputs = processor([conversations(None)[0]], add_generation_prompt=True)
    for use_cache in (True, False):
        tokens = generate(always, inputs, use_cache=use_cache)
        assert tokens.tolist() == [[always.config.visual_token_id] * 8]


def test_generate_several_sequences_and_beams(model, processor):
    inputs = processor([conversations(None)[0]], add_generation_prompt=True)
    best = generate(model, inputs, num_beams=3, num_return_sequences=2)
    assert best.shape == (2, 8)
    torch.manual_seed(0)
    sampled = generate(model, inputs, do_sample=True, num_return_sequences=3)
    torch.manual_seed(0)
    assert torch.equal(generate(model, inputs, do_sample=True, num_return_sequences=3), sampled)


def test_the_answer_depends_on_what_was_forgotten(model, processor):
    """The kept tokens stay the same; only memory entries that were not kept change."""
    given = processor([conversations()[0]])
    visuals = given["visuals"]
    given_video = given["mm_encoder_outputs"]["video"]
    source = given_video.pooler_output
    kept = set(visuals.kept_index.tolist())
    dropped = [token for token in range(160) if token not in kept]
    changed = source.clone().flatten(0, 1)
    changed[dropped] += 1.0
    with torch.no_grad():
        before, after = (
            model.model.remember(Visuals(visuals, features={"video": part}))
            for part in (source, changed.view_as(source))
        )
    torch.testing.assert_close(before.kept_tokens, after.kept_tokens, **EXACT)
    out = [logits(model, {"input_ids": given["input_ids"], "visuals": visuals, "memory": m}) for m in (before, after)]
    assert (out[0] - out[1]).abs().max() > 1e-3
    without = tiny_model(tiny_config(memaug=MemAugConfig(num_blocks=0)))
    with torch.no_grad():
        blind = [
            logits(without, {**given, "mm_encoder_outputs": {"video": type(given_video)(pooler_output=part)}})
            for part in (source, changed.view_as(source))
        ]
    torch.testing.assert_close(blind[0], blind[1], **EXACT)


def test_new_memaug_blocks_only_normalise(processor):
    torch.manual_seed(0)
    model = HourLlavaModel(tiny_config()).eval()
    inputs = processor([video_messages(Video(31.0, features=features(31)))])
    long = 1000 * features(31).float()  # far above the norms' epsilon
    memory = model.remember(Visuals(inputs["visuals"], features={"video": long}))
    augmented = model.recall(torch.randn(*inputs["input_ids"].shape, 32), Visuals(inputs["visuals"], memory=memory))
    kept = augmented.flatten(0, 1)[inputs["visuals"].input_index]
    torch.testing.assert_close(kept, F.layer_norm(memory.kept_tokens, [32]), atol=0.02, rtol=0)


def test_without_rotary_the_memory_has_no_order(processor):
    model = tiny_model(tiny_config(memaug=MemAugConfig(rotary_fraction=0.0)))
    given = processor([conversations()[0]])
    with torch.no_grad():
        memory = model.model.remember(Visuals.take_from(dict(given)))
    shuffled = copy.deepcopy(memory)
    order = torch.randperm(memory.keys_values[0].num_entries, generator=torch.Generator().manual_seed(0))
    for block in shuffled.keys_values:
        block.keys, block.values = [block.keys[0][order]], [block.values[0][order]]
    first, second = (
        logits(model, {"input_ids": given["input_ids"], "visuals": given["visuals"], "memory": m})
        for m in (memory, shuffled)
    )
    torch.testing.assert_close(first, second, **EXACT)


def test_gradient_checkpointing_changes_no_gradient(processor):
    inputs = processor([*conversations(), images(1)], packed=True)
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            # transformers 5.23 gave it a new name
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
            assert any(block.gradient_checkpointing for block in model.model.memaug.blocks)
        model(**inputs).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, **EXACT)


def test_every_parameter_that_is_used_learns(processor):
    model = tiny_model().train()
    model(**processor([video_messages(Video(9.0, frames=frames(9))), images(1)], packed=True)).loss.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == {"model.vision_tower.post_layernorm.weight", "model.vision_tower.post_layernorm.bias"}


def test_a_batch_of_text_gives_every_trained_parameter_a_gradient(processor):
    """Other processes, whose batches have visuals, wait for it; it is zero where the batch has no use for a weight."""
    model = tiny_model().train()
    model.model.vision_tower.requires_grad_(False)
    model(**processor([conversations()[1]])).loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("model.vision_tower."):
            assert parameter.grad is None
            continue
        is_used = name.startswith(("model.language_model.", "lm_head."))
        assert parameter.grad.any() == is_used, name


def test_bf16_stays_close(model, processor):
    inputs = processor(conversations())
    low = copy.deepcopy(model).bfloat16()
    expected = logits(copy.deepcopy(low).double(), inputs)  # of the same rounded weights
    error = (logits(low, inputs).double() - expected).norm() / expected.norm()
    assert error < BF16_ERROR, error


def test_save_and_load(processor, tmp_path):
    model = tiny_model().float()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(loaded, HourLlavaForConditionalGeneration)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), HourLlavaConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), HourLlavaModel)
    for field in ("memaug", "forgetting", "video_grid", "visual_token_id", "max_image_tiles", "image_mean"):
        assert getattr(loaded.config, field) == getattr(model.config, field)
    for (name, ours), (other, theirs) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs)
    inputs = processor(conversations())
    torch.testing.assert_close(logits(loaded, inputs), logits(model, inputs))


PAIRS = {
    "llama + clip": (
        {"model_type": "llama", "num_key_value_heads": 4, "tie_word_embeddings": True},
        {"model_type": "clip_vision_model"},
    ),
    "qwen3 + siglip": ({"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16}, {}),
    "mistral + siglip": ({"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": None}, {}),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_other_decoders_and_towers(pair, processor, tmp_path):
    text, vision = PAIRS[pair]
    base = tiny_config().to_dict()
    config = tiny_config(
        text_config={**base["text_config"], "layer_types": None, **text},
        vision_config={**base["vision_config"], **vision},
    )
    model = tiny_model(config)
    mixed = [video_messages(Video(9.0, frames=frames(9))), images(1)]
    padded, packed = processor(mixed), processor(mixed, packed=True)
    lengths = packed["segments"].lengths
    padded_logits = logits(model, padded)
    for row, part in enumerate(logits(model, packed)[0].split(lengths)):
        torch.testing.assert_close(padded_logits[row, : lengths[row]], part, **EXACT)
    prompt = processor([video_messages(Video(9.0, frames=frames(9)), answer=None)], add_generation_prompt=True)
    assert torch.equal(generate(model, prompt), generate(model, prompt, use_cache=False))
    model.float().save_pretrained(tmp_path)
    loaded = HourLlavaForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded, prompt), logits(model, prompt))


def test_mistakes_are_told(model, processor):
    inputs = processor([conversations()[0]])
    with pytest.raises(InputError, match="pass `visuals`"):
        model(input_ids=inputs["input_ids"])
    with pytest.raises(InputError, match="got 0 patch tokens"):
        model(input_ids=inputs["input_ids"], visuals=inputs["visuals"])
    short = {"video": type(inputs["mm_encoder_outputs"]["video"])(pooler_output=features(9))}
    with pytest.raises(InputError, match="got 144 patch tokens for layouts that speak of 160"):
        model(**{**inputs, "mm_encoder_outputs": short})
    with pytest.raises(InputError, match="both pixels and features of a video"):
        model(**inputs, pixel_values_videos=torch.zeros(10, 3, 24, 24))
    with pytest.raises(InputError, match="either input_ids or inputs_embeds"):
        model(**inputs, inputs_embeds=torch.zeros(1, 3, 32))
    packed = processor(conversations(), packed=True)
    with pytest.raises(InputError, match="must form one row"):
        model(**{**packed, "input_ids": packed["input_ids"][:, :-1]})


@pytest.mark.parametrize("temporal", ["keyframe", "question"])
def test_forgetting_that_looks_keeps_as_many_tokens(temporal):
    config = tiny_config(forgetting=ForgettingConfig(temporal=temporal))
    frames, question = torch.randn(40, 3).numpy(), torch.randn(3).numpy()
    layout = video_layout(40, config, frame_descriptors_TD=frames, question_descriptor_D=question)
    assert len(layout.kept_index) == num_kept_video_tokens(40, config)
