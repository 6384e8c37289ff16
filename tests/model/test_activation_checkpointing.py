"""Whatever a training step keeps of its forward pass, it learns the same; and it computes again only what it should."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import tiny_config, tiny_model
from hourllava.errors import ConfigError
from hourllava.model.activation_checkpointing import checkpoint_activations
from hourllava.model.messages import Video
from hourllava.model.modeling import HourLlavaForConditionalGeneration

EXACT = {"atol": 1e-9, "rtol": 1e-9}
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
GELU = torch.ops.aten.gelu.default
MODES = ("none", "full", "selective")
NUM_BLOCKS = 2


def conversations():
    """Two videos of different lengths and a text between them."""

    def conversation(*content):
        return [{"role": "user", "content": list(content)}, {"role": "assistant", "content": "A cat sleeps."}]

    def video(num_frames):
        return {"type": "video", "video": Video(num_frames, features=torch.randn(num_frames, 16, 24))}

    torch.manual_seed(1)
    text = {"type": "text", "text": "What happens?"}
    return [conversation(video(10), text), conversation(text), conversation(video(31), text)]


@pytest.fixture
def batch(processor):
    return processor(conversations(), packed=True)


def small_model():
    """With fewer MemAug blocks, for what is seen on two of them as well as on four."""
    return tiny_model(tiny_config(memaug={"num_blocks": NUM_BLOCKS})).train()


class Counted(TorchDispatchMode):
    """Counts how often each operator runs."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func] += 1
        return func(*args, **(kwargs or {}))


def gradients_of(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(actual, expected, **tolerance):
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def test_all_modes_give_the_same_gradients(batch):
    model = small_model()
    expected = gradients_of(model, batch)
    assert len(expected) > 30
    for mode in MODES:
        checkpoint_activations(model, mode)
        assert_equal_gradients(gradients_of(model, batch), expected, **EXACT)


def test_what_is_computed_again(batch):
    """Each MemAug block attends to 2 samples and their memories, each of 2 layers to 3 samples; text has no memory."""
    num_attentions, num_gelus = NUM_BLOCKS * (2 + 2) + 2 * 3, 1 + NUM_BLOCKS
    expected = {"none": (1, 1), "full": (2, 2), "selective": (1, 2)}
    for mode in MODES:
        model = small_model()
        checkpoint_activations(model, mode)
        with Counted() as operators:
            gradients_of(model, batch)
        seen = operators.counts[ATTENTION] / num_attentions, operators.counts[GELU] / num_gelus
        assert seen == expected[mode], mode


@pytest.mark.parametrize("mode", [*(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES[:2]), MODES[2]])
def test_with_fsdp_each_layer_sharded(mode, batch):
    """MemAug is one unit: its keys and values are made before its blocks run, by a method of its own."""
    expected = gradients_of(small_model(), batch)
    model = small_model()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        units = (*model.model.language_model.layers, model.model.memaug, model.model.multi_modal_projector)
        for module in (*units, model):
            fully_shard(module)
        register_fsdp_forward_method(model.model.memaug, "keys_values")
        checkpoint_activations(model, mode)
        sharded = {name: gradient.full_tensor() for name, gradient in gradients_of(model, batch).items()}
    finally:
        dist.destroy_process_group()
    assert_equal_gradients(sharded, expected, **EXACT)


@pytest.mark.parametrize("mode", MODES[1:])
def test_under_autocast(mode, batch):
    model = small_model().float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients_of(model, batch)
        checkpoint_activations(model, mode)
        assert_equal_gradients(gradients_of(model, batch), expected, atol=0, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_only_what_is_trained_gets_gradients(mode, processor):
    """The frozen tower is not walked back through, also when the frozen decoder stands between MemAug and the loss."""
    model = small_model().requires_grad_(False)
    model.model.memaug.requires_grad_(True)
    checkpoint_activations(model, mode)
    frames = torch.randint(0, 256, (9, 30, 40, 3), dtype=torch.uint8)
    user = {"role": "user", "content": [{"type": "video", "video": Video(9.0, frames=frames)}]}
    batch = processor([[user, {"role": "assistant", "content": "Blue"}]])
    outputs = []
    model.model.vision_tower.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    trained = gradients_of(model, batch)
    assert set(trained) == {name for name, _ in model.named_parameters() if ".memaug." in name}
    assert not outputs[0].requires_grad


def test_can_be_changed_and_does_nothing_outside_training(batch):
    model = small_model()
    checkpoint_activations(model, "full")
    checkpoint_activations(model, "none")
    with Counted() as operators:
        gradients_of(model, batch)
    once = operators.counts[GELU]
    checkpoint_activations(model, "full")
    with Counted() as operators:
        gradients_of(model.eval(), batch)
    assert operators.counts[GELU] == once


def test_a_training_pass_keeps_no_cache(batch):
    assert small_model()(**batch).past_key_values is None


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match="'some'; choose one of none, full, selective"):
        checkpoint_activations(tiny_model(), "some")
    with pytest.raises(ConfigError, match="Linear has no layers that can be computed again"):
        checkpoint_activations(torch.nn.Linear(2, 2), "full")


@pytest.mark.gpu
@pytest.mark.parametrize("num_samples", [1, 3])
def test_all_modes_give_the_same_gradients_on_a_gpu(num_samples, processor):
    """bf16 with the fused kernels: one sample goes through SDPA, several short ones through varlen_attn."""
    config = tiny_config(text_config={**tiny_config().text_config.to_dict(), "hidden_size": 256})
    torch.manual_seed(0)
    model = HourLlavaForConditionalGeneration(config).bfloat16().cuda().train()
    batch = processor(conversations()[:num_samples], packed=True)
    batch = {key: value.to("cuda") if hasattr(value, "to") else value for key, value in batch.items()}
    batch["mm_encoder_outputs"] = {
        name: type(output)(pooler_output=output.pooler_output.cuda())
        for name, output in batch["mm_encoder_outputs"].items()
    }
    expected = gradients_of(model, batch)
    # The gradients of keys' biases are nothing but rounding, so they are measured by the size of all.
    noise = 1e-6 * torch.stack([gradient.float().norm() for gradient in expected.values()]).norm()
    for mode in MODES[1:]:
        checkpoint_activations(model, mode)
        actual = gradients_of(model, batch)
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            error = (actual[name].float() - gradient.float()).norm()
            assert error <= 0.01 * gradient.float().norm() + noise, name
