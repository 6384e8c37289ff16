"""Held-out data during training: its loss, and printed answers.

A held-out record that cannot be read is noted in the ledger and skipped; it does not end training.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from hourllava.data.batches.loader import Allowance, PlannedDataset, has_target
from hourllava.data.batches.plan import Draw
from hourllava.data.batches.samples import RowEncoder
from hourllava.model.head import IGNORED_LABEL, next_token_targets
from hourllava.model.inputs import Sample
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.prompt import END, special_token_id
from hourllava.training.corpus import MODALITIES_KEY, SKIPPED_KEY, Corpus
from hourllava.training.recipe import ValidationRecipe

ANSWER_SEED = 0
_ANY_NUMBER_OF_TOKENS = 1 << 62


class Validation:
    """The held-out data of a run.

    Args:
        recipe: the validation section of the recipe.
        corpus: its data.
        ledger_folder: folder for the ledgers of skipped samples.
    """

    def __init__(self, recipe: ValidationRecipe, corpus: Corpus, ledger_folder: Path) -> None:
        self.recipe, self.corpus, self.ledger_folder = recipe, corpus, ledger_folder

    @torch.no_grad()
    def measure(self, model: nn.Module, rank: int, world_size: int) -> dict[str, float]:
        """Mean loss over the supervised tokens of all processes; empty if there is no supervised token.

        All processes must call this together.

        Args:
            model: the wrapped model.
            rank, world_size: this process's rank, and the number of processes.
        """
        model.eval()
        device = next(model.parameters()).device
        totals = torch.zeros(3, dtype=torch.float64, device=device)
        share = max(self.recipe.micro_batches // world_size, 1)
        loader = self.corpus.loader(self.ledger_folder, rank=rank, world_size=world_size)
        for _, inputs in zip(range(share), loader):
            totals[2] += inputs.pop(SKIPPED_KEY).sum()
            inputs = inputs.to(device)
            inputs.pop(MODALITIES_KEY)
            targets = next_token_targets(inputs["labels"])
            totals[0] += model(**inputs).target_losses.sum()
            totals[1] += (targets != IGNORED_LABEL).sum()
        model.train()
        if dist.is_initialized():
            dist.all_reduce(totals)
        loss, targets, skipped = totals.tolist()
        if skipped and rank == 0:
            what = "" if targets else ", and nothing is left to measure"
            line = f"validation: {skipped:.0f} samples skipped{what}; they are listed in {self.ledger_folder}"
            print(line, file=sys.stderr, flush=True)
        return {"validation_loss": loss / targets} if targets else {}

    def answer(self, model: Any, device: torch.device) -> Iterator[str]:
        """Lines with answers to the first questions of the first records. All processes must call this together.

        A record that one of the processes cannot read is skipped.
        """
        encoder = self.corpus.encoder
        plain = RowEncoder(encoder.processor, encoder.media_root, encoder=encoder.encoder)
        dataset, name = self.corpus.datasets[0], self.corpus.plan.streams[0].name
        rank = dist.get_rank() if dist.is_initialized() else 0
        rows = PlannedDataset([name], [dataset], plain, self.ledger_folder, Allowance(1.0, len(dataset)), rank=rank)
        model.eval()
        num_answered = 0
        for number in range(len(dataset)):
            if num_answered == self.recipe.answers:
                break
            samples = rows[Draw(0, number, _ANY_NUMBER_OF_TOKENS, ANSWER_SEED)]
            if not _everywhere(has_target(samples[:1]), device):
                continue
            question, truth = _first_exchange(dataset.row(number, ["text"])["text"])
            answer = generate(model, encoder.processor, samples[0], self.recipe.max_new_tokens, device)
            yield f"  {question!r:.160} -> {answer!r} (truth {truth!r:.80})"
            num_answered += 1
        model.train()


def _everywhere(mine: bool, device: torch.device) -> bool:
    """Whether it is true on all processes."""
    if not dist.is_initialized():
        return mine
    so = torch.tensor(int(mine), device=device)
    dist.all_reduce(so, dist.ReduceOp.MIN)
    return bool(so)


@torch.no_grad()
def generate(
    model: Any, processor: HourLlavaProcessor, sample: Sample, max_new_tokens: int, device: torch.device
) -> str:
    """The model's answer to the first question of a training sample.

    Args:
        model: the model, in evaluation mode.
        processor: its processor.
        sample: a sample encoded with the `answers` label policy.
        max_new_tokens: longest answer in tokens.
        device: the model's device.
    """
    first_answer = int((sample.labels != IGNORED_LABEL).argmax())
    prompt = dataclasses.replace(
        sample,
        input_ids=sample.input_ids[:first_answer],
        labels=np.full(first_answer, IGNORED_LABEL),
        is_prompt_text=sample.input_ids[:first_answer] != processor.config.visual_token_id,
    )
    inputs = processor.collate([prompt], for_generation=True).to(device)
    tokens = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=special_token_id(processor.tokenizer, END),
        pad_token_id=processor.pad_token_id,
    )
    return processor.decode(tokens[0, first_answer:])


def _first_exchange(record: Mapping[str, Any]) -> tuple[str, str]:
    """The first question and answer of a training record."""
    turns = record["conversations"]
    first = next((k for k, turn in enumerate(turns) if turn.get("from") in ("gpt", "assistant")), 1)
    question, answer = (str(turns[k]["value"]) if 0 <= k < len(turns) else "" for k in (first - 1, first))
    return question.replace("<image>", "").strip(), answer
