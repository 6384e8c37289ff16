"""Our token loop against transformers' own `generate`."""

import pytest
import torch

from conftest import tiny_config, tiny_model
from hourllava.errors import CheckpointError, ConfigError
from hourllava.inference.decoding import Sampler, TextDecoder, generate_tokens

STOP = 7


def prompts(model, lengths, seed=0):
    """Embedded random prompts, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    width, longest = model.config.text_config.hidden_size, max(lengths)
    embeds = torch.randn(len(lengths), longest, width, generator=generator, dtype=model.dtype)
    mask = torch.stack([(torch.arange(longest) >= longest - length).long() for length in lengths])
    return embeds, mask


def run(decoder, embeds, mask, max_new_tokens=12, stop_ids=(), **sampling):
    steps = list(
        generate_tokens(
            decoder, embeds, mask, stop_ids=stop_ids, max_new_tokens=max_new_tokens, sampler=Sampler(**sampling)
        )
    )
    return [[token for token in row if token is not None] for row in zip(*steps)]


@pytest.mark.parametrize("lengths", [(20,), (20, 9, 14)])
def test_greedy_tokens_are_transformers_own(model, lengths):
    embeds, mask = prompts(model, lengths)
    expected = super(type(model), model).generate(
        inputs_embeds=embeds, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    assert run(TextDecoder(model), embeds, mask) == expected.tolist()


def test_buffers_serve_the_next_prompt(model):
    decoder = TextDecoder(model)
    for lengths in [(30,), (5,), (17,), (4, 9), (11,)]:
        embeds, mask = prompts(model, lengths, seed=sum(lengths))
        assert run(decoder, embeds, mask) == run(TextDecoder(model), embeds, mask)


def test_rows_end_one_by_one(model):
    embeds, mask = prompts(model, (20, 9, 14))
    whole = run(TextDecoder(model), embeds, mask)
    stops = (whole[0][3], whole[1][8])
    cut = [row[: next((i for i, token in enumerate(row) if token in stops), 12)] for row in whole]
    assert run(TextDecoder(model), embeds, mask, stop_ids=stops) == cut


def test_an_answer_can_be_empty(model):
    embeds, mask = prompts(model, (20,))
    first = run(TextDecoder(model), embeds, mask, max_new_tokens=1)[0][0]
    steps = generate_tokens(TextDecoder(model), embeds, mask, stop_ids=(first,), max_new_tokens=5, sampler=Sampler())
    assert list(steps) == []


def test_chance_is_seeded_and_follows_the_probabilities():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    draws = torch.stack([Sampler(1.0, seed=seed).choose(logits) for seed in range(2000)]).flatten()
    frequencies = torch.bincount(draws, minlength=4) / 2000
    torch.testing.assert_close(frequencies, logits.softmax(-1)[0], atol=0.04, rtol=0)
    one, again = ([Sampler(1.0, seed=5).choose(logits).item() for _ in range(1)] for _ in range(2))
    assert one == again
    cold = {Sampler(0.05, seed=seed).choose(logits).item() for seed in range(50)}
    assert cold == {0}
    nucleus = {Sampler(1.0, top_p=0.8, seed=seed).choose(logits).item() for seed in range(200)}
    assert nucleus == {0, 1}  # 0.64 + 0.24 reach 0.8


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-40, 1e-30, 1e-6])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_tiny_temperature_takes_the_likeliest(temperature, scale):
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * scale
    logits[:, 7] = -torch.inf
    for dtype in (torch.float32, torch.bfloat16):
        chosen = Sampler(temperature).choose(logits.to(dtype))
        assert logits.to(dtype).gather(1, chosen[:, None])[:, 0].tolist() == logits.to(dtype).amax(1).tolist()


def test_a_huge_temperature_takes_any():
    logits = torch.tensor([[50.0, 0.0, -50.0]])
    assert {Sampler(1e300, seed=seed).choose(logits).item() for seed in range(50)} == {0, 1, 2}


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_a_sampled_answer_is_the_same_alone_and_in_a_batch(model, temperature):
    """Also beside rows that have ended, which go on being drawn."""
    embeds, mask = prompts(model, (20, 9, 14))
    options = {"temperature": temperature, "top_p": 0.9, "seed": 3}
    together = run(TextDecoder(model), embeds, mask, **options)
    stops = (together[0][1],)
    cut = run(TextDecoder(model), embeds, mask, stop_ids=stops, **options)
    for row, length in enumerate((20, 9, 14)):
        alone = run(TextDecoder(model), embeds[row : row + 1, -length:], mask[row : row + 1, -length:], **options)
        assert together[row] == alone[0]
        ended = next((n for n, token in enumerate(alone[0]) if token in stops), 12)
        assert cut[row] == alone[0][:ended]
    assert len({tuple(row) for row in together}) == 3


def test_weights_that_are_no_numbers_are_told(model):
    embeds, mask = prompts(model, (20,))
    with pytest.raises(CheckpointError, match="no numbers"):
        run(TextDecoder(model), embeds * torch.nan, mask)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_p": 0},
        {"top_p": 1.5}, {"top_p": float("nan")}, {"seed": 2**64}, {"seed": -(2**63) - 1},
    ],
)  # fmt: skip
def test_bad_sampling_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Sampler(**options)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("lengths", [(20,), (20, 9, 14)])
def test_the_captured_graph_gives_the_same_tokens(lengths, window):
    text = {
        "layer_types": ["full_attention", "sliding_attention"],
        "use_sliding_window": True,
        "sliding_window": window,
    }
    base = tiny_config().text_config.to_dict()
    config = tiny_config(text_config={**base, **text} if window else base)
    model = tiny_model(config).float().cuda()
    decoder = TextDecoder(model)
    for seed in range(3):
        embeds, mask = (part.cuda() for part in prompts(model, lengths, seed))
        expected = super(type(model), model).generate(
            inputs_embeds=embeds, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        assert run(decoder, embeds, mask) == expected.tolist()
    assert decoder._buffers.graph is not None
