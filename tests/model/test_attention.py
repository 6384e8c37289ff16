"""Packed and chunked attention against plain formulas in float64."""

import pytest
import torch

from hourllava.model import attention
from hourllava.model import attention_kernels as kernels
from hourllava.model.attention import Segments, chunked_attention, packed_attention, split_attention


def naive(query, key, value, causal=False):
    """Attention of one segment, written out; heads repeated for grouped keys."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("qhe,khe->hqk", query, key) / query.shape[-1] ** 0.5
    if causal:
        q, k = scores.shape[1:]
        seen = torch.arange(k)[None] <= torch.arange(q)[:, None] + (k - q)
        scores = scores.masked_fill(~seen, -torch.inf)
    return torch.einsum("hqk,khe->qhe", scores.softmax(-1), value)


def tensors(num_queries, num_keys, heads=4, groups=2, width=8, dtype=torch.float64, requires_grad=False):
    generator = torch.Generator().manual_seed(num_queries * 1000 + num_keys)
    shapes = [(num_queries, heads, width), (num_keys, groups, width), (num_keys, groups, width)]
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_(requires_grad) for s in shapes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[(5, 5)], [(3, 7)], [(1, 9), (4, 4), (6, 11)], [(0, 2), (2, 2)]])
def test_packed_attention_stays_within_its_segment(lengths, causal):
    query_lengths, key_lengths = (tuple(part) for part in zip(*lengths))
    query, key, value = tensors(sum(query_lengths), sum(key_lengths))
    output = packed_attention(query, key, value, Segments(query_lengths), Segments(key_lengths), causal=causal)
    parts = zip(query.split(query_lengths), key.split(key_lengths), value.split(key_lengths))
    expected = torch.cat([naive(*part, causal=causal) for part in parts if len(part[0])])
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("num_folded", [132, 136, 188, 192, 652, 656, 764, 768])
def test_queries_that_are_filled_up_on_the_cpu_get_the_same(num_folded, groups):
    query, key, value = tensors(num_folded * groups // 4, 40, groups=groups, requires_grad=True)
    output = packed_attention(query, key, value, Segments((len(query),)), Segments((40,)))
    torch.testing.assert_close(output, naive(query, key, value))
    gradients = torch.autograd.grad(output.square().sum(), (query, key, value))
    expected = torch.autograd.grad(naive(query, key, value).square().sum(), (query, key, value))
    torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize("window", [1, 3, 7, 20])
def test_a_window_hides_what_lies_further_back(monkeypatch, window):
    """Against a mask written out, with blocks of queries shorter than, as long as and longer than the window."""
    query_lengths, key_lengths = (9, 1, 6), (9, 5, 13)
    query, key, value = tensors(sum(query_lengths), sum(key_lengths))
    expected = []
    parts = zip(query.split(query_lengths), key.split(key_lengths), value.split(key_lengths))
    for one_query, one_key, one_value in parts:
        own = torch.arange(len(one_query)) + len(one_key) - len(one_query)
        distance = own[:, None] - torch.arange(len(one_key))
        output = torch.nn.functional.scaled_dot_product_attention(
            *(part.transpose(0, 1)[None] for part in (one_query, one_key, one_value)),
            attn_mask=(distance >= 0) & (distance < window),
            enable_gqa=True,
        )
        expected.append(output[0].transpose(0, 1))
    for num_queries in (2, 3, 1024):
        monkeypatch.setattr(attention, "QUERIES_OF_A_WINDOW", num_queries)
        segments = Segments(query_lengths), Segments(key_lengths)
        output = packed_attention(query, key, value, *segments, causal=True, window=window)
        torch.testing.assert_close(output, torch.cat(expected))


@pytest.mark.parametrize("num_pieces", [1, 2, 5, 7])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_pieces_of_the_keys_side_by_side_equal_one_pass(num_pieces, groups):
    query, key, value = tensors(3, 36, groups=groups)
    torch.testing.assert_close(split_attention(query, key, value, num_pieces), naive(query, key, value))


def test_few_queries_with_many_keys_are_split(monkeypatch):
    """As many blocks as a GPU needs, pieces not too short; many queries, and those with a gradient, are not split."""
    pieces = []
    monkeypatch.setattr(kernels, "can_flash", lambda query: True)
    monkeypatch.setattr(kernels, "can_cudnn", lambda query: False)
    monkeypatch.setattr(kernels, "with_lse", kernels.written_out_with_lse)
    monkeypatch.setattr(kernels, "flash", lambda *parts: pieces.append(1) or written_out(*parts))
    split = attention.split_attention
    monkeypatch.setattr(attention, "split_attention", lambda *parts: pieces.append(parts[3]) or split(*parts))
    monkeypatch.setattr(attention, "MIN_SCORES_ALONE", 1)
    monkeypatch.setattr(attention, "MIN_KEYS_OF_A_PIECE", 10)
    monkeypatch.setattr(attention, "BLOCKS_OF_FEW_QUERIES", 8)
    monkeypatch.setattr(attention, "QUERIES_OF_A_BLOCK", 64)
    for num_queries, num_keys, has_gradient in ((3, 95, False), (3, 25, False), (100, 95, False), (3, 95, True)):
        query, key, value = tensors(num_queries, num_keys)
        with torch.set_grad_enabled(has_gradient):
            output = packed_attention(query, key, value, Segments((num_queries,)), Segments((num_keys,)))
        torch.testing.assert_close(output, naive(query, key, value))
    assert pieces == [4, 2, 1, 1]


def written_out(query_1HQE, key_1GKE, value_1GKE, causal, scale):
    parts = (part[0].transpose(0, 1) for part in (query_1HQE, key_1GKE, value_1GKE))
    return naive(*parts, causal=causal).transpose(0, 1)[None]


@pytest.mark.gpu
@pytest.mark.parametrize("window", [1, 3, 700])
def test_kernels_know_windows(window):
    """Small segments together and a large one alone, in half precision, against the plain formula."""
    lengths = (40, 17, 3000, 5)
    query, key, value = (part.cuda().bfloat16() for part in tensors(sum(lengths), sum(lengths)))
    segments = Segments(lengths)
    output = packed_attention(query, key, value, segments, segments, causal=True, window=window)
    plain = packed_attention(
        *(part.float().cpu() for part in (query, key, value)), segments, segments, causal=True, window=window
    )
    torch.testing.assert_close(output.float().cpu(), plain, atol=0.03, rtol=0.03)


def test_offsets_made_in_inference_mode_serve_training():
    """Kernels of a later training step save the offsets, which stay with the segments."""

    class Saving(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, offsets):
            ctx.save_for_backward(offsets)
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2, None

    segments = Segments((2, 3))
    with torch.inference_mode():
        assert segments.offsets_on(torch.device("cpu")).tolist() == [0, 2, 5]
    x = torch.ones(2, requires_grad=True)
    Saving.apply(x, segments.offsets_on(torch.device("cpu"))).sum().backward()
    assert x.grad.tolist() == [2, 2]


@pytest.mark.parametrize("causal", [False, True])
def test_small_segments_go_together_and_large_ones_alone(monkeypatch, causal):
    """The order that comes out, with plain formulas in place of the CUDA kernels."""
    together, alone = [], []

    def varlen(query, key, value, query_segments, key_segments, *, causal, window, scale):
        together.append(query_segments.lengths)
        parts = zip(
            *(part.split(s.lengths) for part, s in zip((query, key, value), (query_segments, *[key_segments] * 2)))
        )
        return torch.cat([naive(*part, causal=causal) for part in parts])

    def one_segment(query, key, value, causal, window, scale):
        alone.append(len(query))
        return naive(query, key, value, causal=causal)

    monkeypatch.setattr(kernels, "can_flash", lambda query: True)
    monkeypatch.setattr(attention, "_varlen", varlen)
    monkeypatch.setattr(attention, "_one_segment", one_segment)
    monkeypatch.setattr(attention, "MIN_SCORES_ALONE", 20 * 4)
    query_lengths, key_lengths = (2, 1, 5, 3, 6, 1, 2, 2), (3, 9, 5, 4, 8, 9, 4, 2)
    ours, plain = (tensors(22, 44, requires_grad=True) for _ in range(2))
    output = packed_attention(*ours, Segments(query_lengths), Segments(key_lengths), causal=causal)
    assert (together, alone) == ([(2, 1), (1, 2, 2)], [5, 3, 6])
    parts = zip(*(part.split(n) for part, n in zip(plain, (query_lengths, key_lengths, key_lengths))))
    expected = torch.cat([naive(*part, causal=causal) for part in parts])
    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    for a, b in zip(ours, plain):
        torch.testing.assert_close(a.grad, b.grad)


def test_packed_attention_has_the_gradients_of_the_formula():
    segments = Segments((3, 5))
    ours, plain = (tensors(8, 8, requires_grad=True) for _ in range(2))
    packed_attention(*ours, segments, segments, causal=True).square().sum().backward()
    for part in zip(*(tensor.split((3, 5)) for tensor in plain)):
        naive(*part, causal=True).square().sum().backward()
    for a, b in zip(ours, plain):
        torch.testing.assert_close(a.grad, b.grad)


def test_tokens_outside_all_segments_are_refused():
    query, key, value = tensors(6, 6)
    with pytest.raises(AssertionError):
        packed_attention(query, key, value, Segments((5,)), Segments((6,)))


@pytest.mark.parametrize("num_chunks", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunked_attention_equals_one_pass(num_chunks, dtype):
    query, key, value = tensors(9, 40, dtype=dtype)
    key[13:] *= 20  # chunks of very different weight
    chunks = zip(key.tensor_split(num_chunks), value.tensor_split(num_chunks))
    error = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-12, "rtol": 1e-12}
    torch.testing.assert_close(chunked_attention(query, chunks), naive(query, key, value), **error)


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[(300, 300)], [(40, 700), (300, 300), (1, 64)], [(9, 70), (1500, 1500), (8, 80)]])
def test_cuda_kernels_agree_with_the_formula(lengths, causal):
    query_lengths, key_lengths = (tuple(part) for part in zip(*lengths))
    query, key, value = (
        tensor.cuda() for tensor in tensors(sum(query_lengths), sum(key_lengths), 8, 2, 64, torch.bfloat16)
    )
    output = packed_attention(query, key, value, Segments(query_lengths), Segments(key_lengths), causal=causal)
    parts = zip(query.split(query_lengths), key.split(key_lengths), value.split(key_lengths))
    expected = torch.cat([naive(*(t.double().cpu() for t in part), causal=causal) for part in parts])
    error = (output.double().cpu() - expected).norm() / expected.norm()
    assert error < 1e-2, error


@pytest.mark.gpu
def test_cuda_chunks_agree_with_the_formula():
    query, key, value = (tensor.cuda() for tensor in tensors(200, 5000, 8, 2, 64, torch.bfloat16))
    output = chunked_attention(query, zip(key.cpu().tensor_split(3), value.cpu().tensor_split(3)))
    expected = naive(query.double().cpu(), key.double().cpu(), value.double().cpu())
    error = (output.double().cpu() - expected).norm() / expected.norm()
    assert error < 1e-2, error


@pytest.mark.gpu
def test_few_queries_with_many_keys_on_cuda():
    query, key, value = (part.cuda().bfloat16() for part in tensors(100, 50_001, heads=16, width=64))
    with torch.no_grad():
        output = packed_attention(query, key, value, Segments((100,)), Segments((50_001,)))
    torch.testing.assert_close(output.double(), naive(*(t.double() for t in (query, key, value))), atol=2e-3, rtol=0.02)
