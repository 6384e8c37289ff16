"""torch's norm in the place of the decoder's: all of them, and the same numbers."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from conftest import tiny_model
from hourllava.model.norms import fuse_norms

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


def decoder(kind):
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **SIZES))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()


@pytest.mark.parametrize(("kind", "num_norms"), [("qwen2", 5), ("qwen3", 9), ("llama", 5), ("mistral", 5)])
@torch.no_grad()
def test_the_same_numbers(kind, num_norms):
    own, fused = decoder(kind), decoder(kind)
    fuse_norms(fused)
    assert sum(isinstance(module, nn.RMSNorm) for module in fused.modules()) == num_norms
    assert not any(hasattr(module, "variance_epsilon") for module in fused.modules())
    fused.load_state_dict(own.state_dict())
    ids = torch.arange(20)[None]
    torch.testing.assert_close(fused(ids).last_hidden_state, own(ids).last_hidden_state)


@torch.no_grad()
def test_a_norm_of_another_formula_stays():
    gemma, untouched = decoder("gemma3_text"), decoder("gemma3_text")  # multiplies by 1 + weight
    fuse_norms(gemma)
    ids = torch.arange(20)[None]
    assert torch.equal(gemma(ids).last_hidden_state, untouched(ids).last_hidden_state)


def test_a_new_model_starts_with_weights_of_one():
    model = type(tiny_model())(tiny_model().config)
    norms = [module for module in model.modules() if isinstance(module, nn.RMSNorm)]
    assert len(norms) == 5
    assert all((norm.weight == 1).all() for norm in norms)
