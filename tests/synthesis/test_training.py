"""What synthesis makes is what `data prepare` and `train` take: nano's stage 3 in miniature, with its evidence."""

import json

import pytest

from cli.in_process import run_here
from conftest import tiny_checkpoint
from forked_decoding import forked_decoding
from hourllava.data.mds.reader import MdsDataset
from synthesis.runs import synthesise, write_world
from synthesis.scoring import rows_of

STREAM = "shards/hourllava_s3/0"


@pytest.fixture(scope="module")
def prepared(offline):
    """A data set of two short videos, prepared as docs/synthesis.md says; its folder."""
    assert offline.ended.error is None
    root = offline.out.parent
    mixture = {
        "parts": 1,
        "sources": {
            "made": {
                "kind": "video",
                "media": "videos",
                "questions_per_record": 5,
                "files": {"data/jsons/videomarathon.json": "all"},
            }
        },
        "stages": {"s3": {"streams": {"0": ["made_part0"]}}},
    }
    (root / "mixture.json").write_text(json.dumps(mixture))
    made = ("--mixture", root / "mixture.json", "--out", root / "shards")
    ended = run_here("data", "prepare", "--stage", "s3", "--root", root, *made)
    assert ended.code == 0, ended.stdout + ended.stderr
    return root


def test_prepare_takes_every_question_with_its_evidence(prepared):
    texts = [row["text"] for row in MdsDataset(prepared / STREAM)]
    answers = [turn for text in texts for turn in text["conversations"] if turn["from"] == "gpt"]
    questions = rows_of(prepared / "data" / "jsons" / "questions.jsonl")
    assert len(answers) == len(questions) > 50
    assert max(len(text["conversations"]) for text in texts) == 10
    assert sum("evidence" in answer for answer in answers) == sum("evidence" in row for row in questions) > 50


@pytest.mark.slow
def test_nanos_stage_3_in_miniature_learns_from_it(prepared, tmp_path):
    changes = {
        "out": str(tmp_path / "run"),
        "start": {"checkpoint": str(tiny_checkpoint())},
        "data.streams": [{"folder": str(prepared / STREAM)}],
        "data.media": str(prepared),
        "data.workers": 0,
        "data.grounding_weight": 1.0,
        "batch": {"token_budget": 2048, "samples": None, "tokens": 4096, "multiple_of": 2},
        "schedule": {"max_steps": 24, "epochs": 100},
        "learning_rates": {"*": 1e-2},  # a random model of 32 numbers a token, and few steps
        "precision": "fp32",
        "compile": False,
        "log": {"every_steps": 1, "to": []},
    }
    recipe = load_recipe(
        "recipes/hourllava-nano/s3.yaml", [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    )
    with forked_decoding():
        train(recipe)
    history = json.loads((checkpoints(recipe.out)[-1] / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    shares = [entry["evidence_share"] for entry in history if "evidence_share" in entry]
    assert len(shares) == len(losses) == 24
    assert losses[-1] < losses[0] - 0.5
    assert all(0 < share < 1 for share in shares)  # every batch has evidence, and it is part of the loss
