"""How much kept tokens look at known evidence: the share that evidence spans are made of, and what it teaches."""

import dataclasses

import numpy as np
import pytest
import torch

from conftest import tiny_config, tiny_model
from hourllava.inference.questions.evidence import WatchedQueries, shares_of_runs
from hourllava.model.activation_checkpointing import checkpoint_activations
from hourllava.model.attention import Segments, log_sum_exp
from hourllava.model.attention_share import KeyRuns
from hourllava.model.config import MemAugConfig
from hourllava.model.grounding import ENOUGH, Grounding, grounding_loss
from hourllava.model.layout import video_entries_at
from hourllava.model.messages import Video
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.visuals import Visuals

SPANS = ([(2.0, 4.0)], [(7.0, 8.0), (0.0, 1.0)], [(20.0, 23.0)])


def record(question):
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "A cat."}]


@pytest.fixture
def samples(processor):
    return samples_of(processor)


def samples_of(processor):
    """Two questions about one memory, the second without evidence between them, and one about another."""

    def video(num_frames):
        torch.manual_seed(num_frames)
        return Video(float(num_frames), features=torch.randn(num_frames, 16, 24, dtype=torch.float64))

    first = processor.encode_record(record("What?"), video=video(12), evidence_seconds=SPANS[0])
    again = Video(12.0, layout=first.layout, num_frames=12)
    unknown = processor.encode_record(record("Which of them is it?"), video=again)
    second = processor.encode_record(record("And then?"), video=again, evidence_seconds=SPANS[1])
    third = processor.encode_record(record("Why is that so?"), video=video(31), evidence_seconds=SPANS[2])
    return [first, unknown, second, third]


def random_heads(*sizes):
    torch.manual_seed(sum(sizes))
    return torch.randn(*sizes, dtype=torch.float64, requires_grad=True)


def test_log_sum_exp_is_that_of_the_scores_of_each_segment():
    query, key = random_heads(9, 4, 8), random_heads(14, 2, 8)
    queries, keys = Segments((3, 0, 6)), Segments((5, 2, 7))
    actual = log_sum_exp(query, key, queries, keys)
    scores = torch.einsum("qhe,khe->hqk", query, key.repeat_interleave(2, 1)) / 8**0.5
    expected = torch.cat([scores[:, :3, :5].logsumexp(-1), scores[:, 3:, 7:].logsumexp(-1)], 1).T
    torch.testing.assert_close(actual, expected)
    for wanted, found in zip(*(torch.autograd.grad(lse.square().sum(), (query, key)) for lse in (expected, actual))):
        torch.testing.assert_close(found, wanted)


@pytest.mark.gpu
def test_log_sum_exp_of_the_kernel_and_its_gradient():
    """The kernel's own gradient would be none: against scores written out, in float64 on the CPU."""
    query, key = random_heads(40, 4, 64), random_heads(700, 2, 64)
    queries, keys = Segments((13, 0, 27)), Segments((300, 150, 250))
    expected = log_sum_exp(query, key, queries, keys)
    wanted = torch.autograd.grad((expected.sin()).sum(), (query, key))
    half = [heads.detach().to("cuda", torch.bfloat16).requires_grad_() for heads in (query, key)]
    actual = log_sum_exp(*half, queries, keys)
    torch.testing.assert_close(actual.cpu().double(), expected, atol=0.02, rtol=0.01)
    for right, found in zip(wanted, torch.autograd.grad((actual.sin()).sum(), half)):
        error = (found.cpu().double() - right).norm() / right.norm()
        assert error < 0.03


def test_entries_are_those_of_the_frames_shown():
    config = tiny_config()
    width = config.video_frame_tokens + 1
    entries = video_entries_at([(2.0, 4.0), (9.5, 11.0)], 12, 12.0, config)
    np.testing.assert_array_equal(np.unique(entries // width), [2, 3, 10])
    assert len(entries) == 3 * width
    assert len(video_entries_at([(3.2, 3.8)], 12, 12.0, config)) == 0  # between two frames
    # Three frames are repeated to eight: 0 0 0 0 1 1 1 2.
    np.testing.assert_array_equal(np.unique(video_entries_at([(1.0, 2.0)], 3, 3.0, config) // width), [4, 5, 6])


def test_spans_that_teach_nothing_are_no_evidence(processor):
    video = Video(12.0, features=torch.zeros(12, 16, 24))
    for spans in ([], [(0.0, 12.0)], [(3.2, 3.8)]):
        assert processor.encode_record(record("What?"), video=video, evidence_seconds=spans).evidence is None


@pytest.mark.parametrize("memaug", [{}, {"recall": "question", "recall_tokens": 2}])
def test_shares_are_the_attention_that_evidence_spans_are_made_of(memaug, tokenizer):
    config = tiny_config(memaug=MemAugConfig(**memaug))
    model, processor = tiny_model(config), HourLlavaProcessor(tokenizer, config)
    samples = samples_of(processor)
    inputs = processor.collate_packed(samples)
    layouts = inputs["visuals"]
    grounding = Grounding(layouts.evidence, layouts.memory_segments)
    with torch.no_grad():
        model.model.embed(inputs["input_ids"], Visuals.take_from(inputs), grounding.observe)
    shares = grounding.shares().tolist()
    assert len(shares) == 3
    for sample, share in zip((samples[0], samples[2], samples[3]), shares):
        # Alone, and with the memory it shares.
        owner = samples[3] if sample is samples[3] else samples[0]
        alone = processor.collate_packed([dataclasses.replace(sample, features=owner.features)])
        watched = WatchedQueries(alone["visuals"].watching_query_index)
        with torch.no_grad():
            model.model.embed(alone["input_ids"], Visuals.take_from(alone), watched.observe)
        share_of_entries = shares_of_runs([watched], KeyRuns(np.arange(len(sample.layout.memory_index))))[0]
        assert share == pytest.approx(share_of_entries[sample.evidence].sum().item(), rel=1e-5)


def test_the_loss_teaches_to_look_there(processor, samples):
    model = tiny_model().float().train().requires_grad_(False)
    model.model.memaug.requires_grad_(True)
    inputs = processor.collate_packed(samples)
    plain, grounded = model(**inputs), model(**inputs, grounding_weight=0.5)
    num_targets = (inputs["labels"] != -100).sum()
    expected = plain.loss + 0.5 * grounding_loss(grounded.evidence_shares).sum() / num_targets
    torch.testing.assert_close(grounded.loss, expected, atol=1e-5, rtol=1e-5)
    assert plain.evidence_shares is None
    optimizer = torch.optim.Adam(model.model.memaug.parameters(), 0.03)
    for _ in range(8):
        optimizer.zero_grad()
        output = model(**inputs, grounding_weight=10.0)
        output.loss.backward()
        optimizer.step()
    assert (output.evidence_shares > 1.5 * grounded.evidence_shares).all()


@pytest.mark.parametrize(
    ("mode", "recall"),
    [
        pytest.param("full", "kept", marks=pytest.mark.slow),
        ("selective", "kept"),
        pytest.param("full", "question", marks=pytest.mark.slow),
        ("selective", "question"),
    ],
)
def test_blocks_that_are_computed_again_are_grounded_alike(mode, recall, tokenizer):
    config = tiny_config(memaug=MemAugConfig(recall=recall, recall_tokens=2))
    processor = HourLlavaProcessor(tokenizer, config)
    inputs = processor.collate_packed(samples_of(processor))
    gradients = []
    for checkpointing in ("none", mode):
        model = tiny_model(config).train()
        checkpoint_activations(model, checkpointing)
        model(**inputs, grounding_weight=2.0).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-9, rtol=1e-6, msg=name)


def test_nothing_is_asked_beyond_what_is_enough():
    shares = torch.tensor([0.0, 0.01, ENOUGH, 0.9], requires_grad=True)
    loss = grounding_loss(shares)
    loss.sum().backward()
    assert loss[0].isfinite()
    assert loss[1] > 1
    assert not loss[2:].any()
    assert shares.grad[1] < 0
    assert shares.grad[3] == 0
