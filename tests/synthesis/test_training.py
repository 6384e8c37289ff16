"""What synthesis makes is what `data prepare` and `train` take: nano's stage 3 in miniature, with its evidence."""

import json
from typing import NamedTuple

import pytest

from cli.in_process import run_here
from conftest import tiny_checkpoint
from forked_decoding import forked_decoding
from hourllava.data.mds.reader import MdsDataset
from synthesis.runs import synthesise, write_world
from synthesis.scoring import rows_of


class Prepared(NamedTuple):
    """A data set and its shards; paths of media begin at `root`."""

    root: str
    questions: list
    stream: str


def prepare(root, videos, data):
    """Make shards of a data set as docs/synthesis.md says."""
    mixture = {
        "parts": 1,
        "sources": {
            "made": {
                "kind": "video",
                "media": videos,
                "questions_per_record": 5,
                "files": {f"{data}/jsons/videomarathon.json": "all"},
            }
        },
        "stages": {"s3": {"streams": {"0": ["made_part0"]}}},
    }
    (root / f"{data}-mixture.json").write_text(json.dumps(mixture))
    made = ("--mixture", root / f"{data}-mixture.json", "--out", root / f"{data}-shards")
    ended = run_here("data", "prepare", "--stage", "s3", "--root", root, *made)
    assert ended.code == 0, ended.stdout + ended.stderr
    questions = rows_of(root / data / "jsons" / "questions.jsonl")
    return Prepared(str(root), questions, str(root / f"{data}-shards" / "hourllava_s3" / "0"))


@pytest.fixture(scope="module")
def prepared(offline):
    assert offline.ended.error is None
    return prepare(offline.out.parent, "videos", offline.out.name)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """A data set of two other videos."""
    root = tmp_path_factory.mktemp("held-out")
    write_world(root / "videos", (60, 64), seed=7)
    ended = synthesise(root / "videos", root / "data", settings={"questions": {"per_task": 1}}, verifier=False)
    assert ended.error is None
    return prepare(root, "videos", "data")


def test_prepare_takes_every_question_with_its_evidence(prepared):
    texts = [row["text"] for row in MdsDataset(prepared.stream)]
    answers = [turn for text in texts for turn in text["conversations"] if turn["from"] == "gpt"]
    assert len(answers) == len(prepared.questions) > 50
    assert max(len(text["conversations"]) for text in texts) == 10
    assert sum("evidence" in answer for answer in answers) == sum("evidence" in q for q in prepared.questions) > 50


def trained(data, start, out, steps, rates, tokens):
    """Train nano's stage 3 in miniature; the figures of each step, those of the first one before it."""
    from hourllava.training.checkpoints import checkpoints
    from hourllava.training.recipe import load_recipe
    from hourllava.training.run import train

    changes = {
        "out": str(out),
        "start": {"checkpoint": str(start)},
        "data.streams": [{"folder": data.stream}],
        "data.media": data.root,
        "data.workers": 0,
        "batch": {"token_budget": tokens, "samples": None, "tokens": tokens, "multiple_of": 1},
        "schedule": {"max_steps": steps, "epochs": 100},
        "learning_rates": rates,
        "precision": "fp32",
        "compile": False,
        "log": {"every_steps": 1, "to": []},
    }
    recipe = load_recipe(
        "recipes/hourllava-nano/s3.yaml", [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    )
    assert recipe.data.grounding_weight == 1
    with forked_decoding():
        train(recipe)
    history = json.loads((checkpoints(recipe.out)[-1] / "trainer_state.json").read_text())["log_history"]
    figures = [entry for entry in history if "loss" in entry]
    assert len(figures) == steps
    return figures


@pytest.mark.slow
def test_nanos_stage_3_in_miniature_learns_from_it(prepared, tmp_path):
    """A random model of 32 numbers a token, and few steps: it learns words."""
    steps = trained(prepared, tiny_checkpoint(), tmp_path / "run", 24, {"*": 1e-2}, 4096)
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5
    assert all(0 < step["evidence_share"] < 1 for step in steps)


@pytest.mark.slow
def test_grounding_from_its_evidence_finds_the_moments_in_other_videos(prepared, held_out, tmp_path):
    """Nano forgets where to look; twelve steps on two videos teach it to find what is asked about in two others."""
    import torch

    from hourllava.model.checkpoint import save_weights
    from hourllava.model.nano import load_nano, nano_tokenizer

    model, _ = load_nano()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".memaug." in name and ".cross_attn.q_proj." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    start = tmp_path / "start"
    start.mkdir()
    save_weights(model.config, model.state_dict(), start)
    nano_tokenizer().save_pretrained(start)

    def share_in_other_videos(checkpoint, out):
        (step,) = trained(held_out, checkpoint, out, 1, {"*": 0, "model.memaug.*": 1e-9}, 8192)
        return step["evidence_share"]

    trained(prepared, start, tmp_path / "run", 12, {"*": 0, "model.memaug.*": 1e-3}, 4096)
    before = share_in_other_videos(start, tmp_path / "before")
    after = share_in_other_videos(tmp_path / "run" / "final", tmp_path / "after")
    assert before < 0.2  # about as of one that looks everywhere
    assert after > 1.4 * before
