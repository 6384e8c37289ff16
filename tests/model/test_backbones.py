"""Every verified family of decoders and towers against its own model in transformers; all others refused by name."""

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from conftest import tiny_config
from hourllava.errors import ConfigError
from hourllava.inference.rows.decoder import Row, RowDecoder
from hourllava.inference.rows.prefill import prefill
from hourllava.inference.rows.sampling import Sampling
from hourllava.model.attention import Segments
from hourllava.model.backbones import DECODERS, VISION_FAMILIES, attention_window, text_rope_theta
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.vision import build_vision_tower, patch_features

WINDOW = 6
NUM_NEW_TOKENS = 4
LENGTHS = (13, 7, 9)  # all longer than the window
EXACT = {"atol": 1e-9, "rtol": 1e-9}
# Families norm and take the softmax in float32, whatever their weights are.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
# Padded on the left, float32 angles are those of larger positions.
NEARLY = {"atol": 1e-4, "rtol": 1e-4}

SIZES = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
WINDOWS = {
    "cohere2": {"sliding_window": WINDOW, "layer_types": MIXED},
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": MIXED},
    "mistral": {"sliding_window": WINDOW},
    "olmo3": {"sliding_window": WINDOW, "layer_types": MIXED},
    "phi3": {"sliding_window": WINDOW},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": MIXED},
    "qwen3": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": MIXED},
    "smollm3": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": MIXED},
    "starcoder2": {"sliding_window": WINDOW},
}
SPECIAL = {
    "cohere": {"logit_scale": 0.0625, "use_qk_norm": True},
    "gemma": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 3.0, "attention_multiplier": 0.2},
    "qwen3": {"head_dim": 16},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
}
CASES = [
    *((family, {}) for family in DECODERS if not DECODERS[family].has_windows),
    *((family, WINDOWS[family]) for family in DECODERS if DECODERS[family].has_windows),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {}),
    *(
        ("llama", {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, "factor": 4.0, **more}})
        for kind, more in (
            ("linear", {}),
            ("yarn", {"original_max_position_embeddings": 16}),
            ("llama3", {"original_max_position_embeddings": 16, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        )
    ),
    ("llama", {"tie_word_embeddings": True}),
]


def text_fields(family, fields):
    return {"model_type": family, **SIZES, **SPECIAL.get(family, {}), **fields}


def pair(family, fields):
    """The family's own random causal language model in float64, and ours with the same weights."""
    config = HourLlavaConfig(
        text_config=text_fields(family, fields), vision_config=tiny_config().vision_config.to_dict(), video_grid=4
    )
    torch.manual_seed(0)
    # A window is in force whatever kernel computes it: their plainest attention is the reference.
    own = AutoModelForCausalLM.from_config(config.text_config, attn_implementation="eager").double().eval()
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = HourLlavaForConditionalGeneration(config).double().eval()
    ours.model.language_model.load_state_dict(own.base_model.state_dict())
    ours.lm_head.load_state_dict(own.lm_head.state_dict())
    ours.tie_weights()
    return own, ours


def token_ids():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, SIZES["vocab_size"] - 1, (length,), generator=generator) for length in LENGTHS]


def padded(rows, on_the_left):
    longest = max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if on_the_left else slice(len(row))
        ids[number, place], mask[number, place] = row, 1
    return ids, mask


@pytest.mark.parametrize(("family", "fields"), CASES)
@torch.no_grad()
def test_logits_and_tokens_are_the_familys_own(family, fields):
    own, ours = pair(family, fields)
    rows = token_ids()
    expected = [own(row[None]).logits[0] for row in rows]

    for row, logits in zip(rows, expected):
        torch.testing.assert_close(ours(row[None]).logits[0], logits, **CLOSE)
    ids, mask = padded(rows, on_the_left=False)
    for row, logits in zip(ours(ids, attention_mask=mask).logits, expected):
        torch.testing.assert_close(row[: len(logits)], logits, **CLOSE)
    packed = ours(torch.cat(rows)[None], segments=Segments(LENGTHS)).logits[0]
    for part, logits in zip(packed.split(LENGTHS), expected):
        torch.testing.assert_close(part, logits, **CLOSE)

    labels = torch.cat(rows)[None].clone()
    labels[0, [0, *torch.tensor(LENGTHS).cumsum(0)[:-1].tolist()]] = -100
    losses = [
        torch.nn.functional.cross_entropy(logits[:-1], row[1:], reduction="sum") for row, logits in zip(rows, expected)
    ]
    loss = ours(torch.cat(rows)[None], segments=Segments(LENGTHS), labels=labels).loss
    torch.testing.assert_close(loss, sum(losses) / (sum(LENGTHS) - len(LENGTHS)), **CLOSE)

    # Their tokens one row at a time and without a cache: nothing that pads or trims can be wrong in both.
    def greedy(row):
        for _ in range(NUM_NEW_TOKENS):
            row = torch.cat([row, own(row[None]).logits[0, -1].argmax()[None]])
        return row[-NUM_NEW_TOKENS:].tolist()

    tokens = [greedy(row) for row in rows]
    ids, mask = padded(rows, on_the_left=True)
    generated = ours.generate(ids, attention_mask=mask, max_new_tokens=NUM_NEW_TOKENS, do_sample=False, pad_token_id=0)
    assert generated[:, ids.shape[1] :].tolist() == tokens
    # In rows of our own buffers, alone and shared.
    for shares_buffers in (False, True):
        decoder = RowDecoder(ours)
        decoder._shares_buffers = shares_buffers
        decoded: dict[Row, list[int]] = {}
        for row, logits in zip(rows, expected):
            prompt = prefill(ours, ours.get_input_embeddings()(row))
            torch.testing.assert_close(prompt.logits_V, logits[-1], **NEARLY)
            decoded[decoder.join(prompt, max_new_tokens=NUM_NEW_TOKENS, sampling=Sampling())] = []
        while len(decoder):
            for row, token in decoder.step():
                decoded[row].append(token)
        assert list(decoded.values()) == tokens


def test_every_family_with_windows_is_tested_with_one_shorter_than_the_prompts():
    assert WINDOWS.keys() == {family for family, traits in DECODERS.items() if traits.has_windows}
    for family, fields in WINDOWS.items():
        config = CONFIG_MAPPING[family](**text_fields(family, fields))
        assert attention_window(config) == WINDOW < min(LENGTHS)


REFUSED = sorted(name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in CONFIG_MAPPING and name not in DECODERS)


def test_other_families_are_refused_by_name():
    assert {"gemma2", "gpt2", "stablelm", "mixtral", "mamba", "gpt_neox", "falcon"} <= set(REFUSED)
    for family in [*REFUSED, "no_such_family", "bert"]:
        with pytest.raises(ConfigError, match=rf"text_config names the family '{family}'.*cohere, .*llama, ") as caught:
            HourLlavaConfig(text_config={"model_type": family})
        assert "\n" not in str(caught.value)
    for family in ["vit", "siglip", "siglip2_vision_model", "dinov2", "no_such_tower"]:
        with pytest.raises(ConfigError, match=f"vision_config names the family '{family}'.*siglip_vision_model"):
            tiny_config(vision_config={"model_type": family})


@pytest.mark.parametrize(
    ("family", "fields", "complaint"),
    [
        ("llama", {"sliding_window": 8}, "which the family 'llama' does not have"),
        ("gemma", {"layer_types": ["sliding_attention"] * 3}, "which the family 'gemma' does not have"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0; only None is served"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0; only None is served"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True; only False"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0; it must be a whole number"),
        ("qwen3", {"layer_types": ["chunked_attention"] * 3}, "layer_types names chunked_attention; allowed are full"),
        (
            "phi3",
            {
                "original_max_position_embeddings": 256,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0] * 4,
                    "long_factor": [2.0] * 4,
                },
            },
            "rope_type is 'longrope'; choose one of default",
        ),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "is 'dynamic'"),
    ],
)
def test_settings_that_are_not_served_are_refused(family, fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        HourLlavaConfig(text_config=text_fields(family, fields))


def test_memaug_takes_the_base_of_layers_with_full_attention():
    nested = {
        "full_attention": {"rope_type": "default", "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }
    config = HourLlavaConfig(
        text_config=text_fields("gemma3_text", {**WINDOWS["gemma3_text"], "rope_parameters": nested})
    )
    assert config.rope_theta == text_rope_theta(config.text_config) == 5e5
    assert tiny_config(text_config=text_fields("llama", {"rope_theta": 7e5})).rope_theta == 7e5
    assert tiny_config(memaug={"rope_theta": 123.0}).rope_theta == 123.0
    without = CONFIG_MAPPING["llama"](**SIZES)
    without.rope_parameters = {"rope_type": "default"}
    with pytest.raises(ConfigError, match=r"names no rope_theta; give one, or set memaug\.rope_theta"):
        HourLlavaConfig(text_config=without)


@pytest.mark.parametrize("layer", [-3, -2, -1])
@pytest.mark.parametrize("family", VISION_FAMILIES)
def test_features_are_the_towers_own_hidden_states(family, layer):
    vision = {**tiny_config().vision_config.to_dict(), "model_type": family}
    config = tiny_config(vision_config=vision, vision_feature_layer=layer)
    torch.manual_seed(0)
    own = AutoModel.from_config(config.vision_config).double().eval()
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tower = build_vision_tower(config).double().eval()
    assert not tower.load_state_dict(own.state_dict(), strict=False).missing_keys
    pixels = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        expected = own(pixels, output_hidden_states=True).hidden_states[layer][:, -36:]
        torch.testing.assert_close(patch_features(tower, pixels, config), expected, **EXACT)
