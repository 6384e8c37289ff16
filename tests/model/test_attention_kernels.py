"""Kernels called by name: what they compute, which one serves which segment, and that no switch is touched."""

import re
from pathlib import Path

import pytest
import torch

import hourllava
from hourllava.model import attention
from hourllava.model import attention_kernels as kernels
from hourllava.model.attention import Segments, packed_attention
from model.test_attention import naive, tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("attend", [kernels.with_lse, kernels.written_out_with_lse])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_with_its_log_sum_exp(monkeypatch, attend, dtype, scale):
    """Three segments, queries shared by all, values by all heads."""
    monkeypatch.setattr(kernels, "MAX_WRITTEN_SCORES", 3 * 2 * 40 * 4)  # four queries at a time
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, 9, 8, generator=generator).to(dtype).expand(3, -1, -1, -1)
    key = torch.randn(3, 40, 2, 8, generator=generator).to(dtype).transpose(1, 2)
    value = torch.randn(3, 1, 40, 8, generator=generator).to(dtype).expand(-1, 2, -1, -1)
    output, lse = attend(query, key, value, scale)
    scores = query.double() @ key.double().transpose(-1, -2) * (scale or 8**-0.5)
    close = {"atol": 0.02, "rtol": 0.02} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(output.double(), scores.softmax(-1) @ value.double(), **close)
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), **close)
    assert output.dtype == dtype
    assert lse.dtype == torch.promote_types(dtype, torch.float32)


def test_heads_that_share_keys_are_further_queries():
    query, key, value = tensors(9, 40)
    folded = kernels.fold_heads(query, 2)
    torch.testing.assert_close(kernels.unfold_heads(folded, 9), query)
    output, _ = kernels.with_lse(folded, key.transpose(0, 1)[None], value.transpose(0, 1)[None])
    torch.testing.assert_close(kernels.unfold_heads(output, 9), naive(query, key, value))


@pytest.fixture
def calls(monkeypatch):
    """The kernels of an H100, with the formula in their place: each call as (kernel, queries, keys)."""
    made = []

    def alone(name):
        def attend(query, key, value, causal, scale):
            made.append((name, query.shape[2], key.shape[2]))
            # cuDNN counts from the starts, flash from the ends: the same only for equal lengths.
            assert name == "flash" or not causal or query.shape[2] == key.shape[2]
            parts = (part[0].transpose(0, 1) for part in (query, key, value))
            return naive(*parts, causal=causal).transpose(0, 1)[None]

        return attend

    def varlen(query, key, value, query_segments, key_segments, *, causal, window, scale):
        made.append(("varlen", query_segments.lengths, key_segments.lengths))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "can_flash", lambda query: False)
            return packed_attention(query, key, value, query_segments, key_segments, causal=causal, window=window)

    monkeypatch.setattr(kernels, "can_flash", lambda query: True)
    monkeypatch.setattr(kernels, "can_cudnn", lambda query: True)
    monkeypatch.setattr(kernels, "flash", alone("flash"))
    monkeypatch.setattr(kernels, "cudnn", alone("cudnn"))
    monkeypatch.setattr(attention, "_varlen", varlen)
    monkeypatch.setattr(attention, "MIN_SCORES_ALONE", 4 * 20)
    monkeypatch.setattr(attention, "MIN_SCORES_FOR_CUDNN", 4 * 1000)
    monkeypatch.setattr(attention, "MIN_PREFILL_SCORES_FOR_CUDNN", 4 * 500)
    monkeypatch.setattr(attention, "MIN_FULL_SCORES_FOR_CUDNN", 4 * 600)
    monkeypatch.setattr(attention, "MIN_FULL_QUERIES_FOR_CUDNN", 10)
    monkeypatch.setattr(attention, "TOKENS_OF_A_PLAN", 8)
    return made


@pytest.mark.parametrize(
    ("lengths", "options", "learns", "expected"),
    [
        # MemAug: a large memory goes to cuDNN, its queries rounded up where no gradient is needed.
        ([(13, 90)], {}, False, [("cudnn", 16, 90)]),
        ([(13, 90)], {}, True, [("cudnn", 13, 90)]),
        ([(13, 70)], {}, False, [("cudnn", 16, 70)]),
        ([(13, 70)], {}, True, [("flash", 13, 70)]),
        ([(13, 40)], {}, False, [("flash", 13, 40)]),
        # Few queries never: the plan would be for many more.
        ([(9, 900)], {}, False, [("flash", 9, 900)]),
        # The decoder: a prefill's queries and keys are rounded up; training's are not, and need more scores.
        ([(27, 27)], {"causal": True}, False, [("cudnn", 32, 32)]),
        ([(20, 20)], {"causal": True}, False, [("flash", 20, 20)]),
        ([(27, 27)], {"causal": True}, True, [("flash", 27, 27)]),
        ([(33, 33)], {"causal": True}, True, [("cudnn", 33, 33)]),
        ([(13, 90)], {"causal": True}, False, [("flash", 13, 90)]),
        # Packed samples.
        ([(3, 3), (2, 2), (9, 9), (2, 2)], {"causal": True}, True, [
            ("varlen", (3, 2), (3, 2)), ("flash", 9, 9), ("flash", 2, 2),
        ]),
        # Windows: never a mask, never a plan.
        ([(40, 40)], {"causal": True, "window": 6}, False, [("varlen", (40,), (40,))]),
        ([(3, 3), (40, 40)], {"causal": True, "window": 6}, True, [("varlen", (3, 40), (3, 40))]),
    ],
)  # fmt: skip
def test_each_segment_gets_its_kernel(calls, monkeypatch, lengths, options, learns, expected):
    query_segments, key_segments = (Segments(tuple(part)) for part in zip(*lengths))
    parts = tensors(query_segments.num_tokens, key_segments.num_tokens, requires_grad=learns)
    with torch.set_grad_enabled(learns):
        output = packed_attention(*parts, query_segments, key_segments, **options)
    assert calls == expected
    monkeypatch.setattr(kernels, "can_flash", lambda query: False)
    monkeypatch.setattr(kernels, "can_cudnn", lambda query: False)
    plain = packed_attention(*parts, query_segments, key_segments, **options)
    torch.testing.assert_close(output, plain)


@pytest.mark.parametrize("causal", [False, True])
def test_neighbouring_lengths_share_a_plan(calls, causal):
    for number in range(33, 41):
        query, key, value = tensors(number, number if causal else 90)
        segments = Segments((number,)), Segments((len(key),))
        with torch.no_grad():
            packed_attention(query, key, value, *segments, causal=causal)
    assert set(calls) == {("cudnn", 40, 40 if causal else 90)}


SWITCH = re.compile(r"enable_(flash|math|mem_efficient|cudnn)_sdp|sdpa_kernel|activate_flash_attention_impl")


def test_no_switch_of_the_process_is_touched():
    """Switches are shared by all threads and libraries. A training process is its own, and sets one when it starts."""
    package = Path(hourllava.__file__).parent
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if SWITCH.search(path.read_text())}
    assert files == {"training/ranks.py"}


@pytest.mark.gpu
@pytest.mark.parametrize("attend", [kernels.flash, kernels.cudnn])
@pytest.mark.parametrize(("num_queries", "num_keys", "causal"), [(300, 300, True), (300, 700, False), (512, 512, True)])
def test_cuda_kernels_and_their_gradients(attend, num_queries, num_keys, causal):
    """Grouped heads in bf16, against the formula in float64."""
    plain = tensors(num_queries, num_keys, 8, 2, 64, requires_grad=True)
    half = [part.detach().cuda().bfloat16().requires_grad_() for part in plain]
    if attend is kernels.cudnn and not kernels.can_cudnn(half[0]):
        pytest.skip("not for this GPU")
    output = attend(*(part.transpose(0, 1)[None] for part in half), causal, None)[0].transpose(0, 1)
    expected = naive(*plain, causal=causal)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (expected * weights).sum().backward()
    (output * weights.cuda().bfloat16()).sum().backward()
    pairs = [(output.detach(), expected.detach()), *((ours.grad, right.grad) for ours, right in zip(half, plain))]
    for ours, right in pairs:
        error = ((ours.double().cpu() - right).norm() / right.norm()).item()
        assert error < 0.02, error


@pytest.mark.gpu
def test_cuda_log_sum_exp_with_expanded_queries_and_values():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, 200, 64, generator=generator).bfloat16().expand(5, -1, -1, -1)
    key = torch.randn(5, 700, 2, 64, generator=generator).bfloat16().transpose(1, 2)
    value = torch.randn(1, 1, 700, 64, generator=generator).bfloat16()
    expanded = value.cuda().expand(5, 2, -1, -1)
    output, lse = kernels.with_lse(query[:1].cuda().expand(5, -1, -1, -1), key.cuda(), expanded)
    expected, expected_lse = kernels.written_out_with_lse(
        query.double(), key.double(), value.double().expand(5, 2, -1, -1)
    )
    torch.testing.assert_close(lse.cpu().double(), expected_lse, atol=0.01, rtol=0.01)
    torch.testing.assert_close(output.cpu().double(), expected, atol=0.02, rtol=0.02)
