"""What `hourllava data show` prints: one shard row as the model sees it.

Look at a few rows before a long training run: is the prompt what you meant, and are the answers what is supervised?
"""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from hourllava.data.mds.reader import MdsDataset
from hourllava.data.prepare.commands import stage_media_root, stream_folders
from hourllava.errors import ConfigError
from hourllava.model.prompt import LabelPolicy


def show_row(
    folder: Path, number: int, *, model: str, media: Path | None, questions: str, history: int, labels: str
) -> Iterator[str]:
    """Encode one row for a model and describe the samples; lines for the user.

    Args:
        folder: of shards, or of a stage, whose rows are numbered through all streams.
        number: of the row, from 0.
        model: whose prompt and tokens are shown.
        media: what the row's paths are relative to; by default what the stage's folder says, or `data`.
        questions: "conversation" or "segments".
        history: with segments, the most earlier questions in front of a question.
        labels: which tokens are supervised, "answers" or "llava".

    Raises:
        ConfigError: there is no such row, no such choice of `questions` or `labels`, or `history` without segments.
        and what `MdsDataset` and `RowEncoder` raise.
    """
    from hourllava.data.batches.lengths import load_processor  # imports torch
    from hourllava.data.batches.samples import RowEncoder

    if labels not in get_args(LabelPolicy):
        raise ConfigError(f"--labels is {labels!r}; use one of: {', '.join(get_args(LabelPolicy))}")
    row = _find_row(folder, number)
    media = media or stage_media_root(folder) or Path("data")
    processor = load_processor(model)
    encode = RowEncoder(
        processor, media, label_policy=cast(LabelPolicy, labels), questions=cast(Any, questions), history=history
    )
    samples = encode(row, seed=0)
    yield f"row {number}: {_describe_media(row)}"
    views = samples[0].features if samples[0].pixels is None else samples[0].pixels
    num_views = 0 if views is None else len(views)
    for k, sample in enumerate(samples):
        visual = sample.input_ids == processor.config.visual_token_id
        recall = visual & (np.cumsum(visual[::-1])[::-1] <= (sample.layout.num_recall_tokens if sample.layout else 0))
        supervised = sample.labels >= 0
        num_recall = f"{recall.sum()} recall tokens, " if recall.any() else ""
        yield (
            f"sample {k + 1} of {len(samples)}: {num_views} views, {(visual & ~recall).sum()} kept tokens, {num_recall}"
            f"{(~visual).sum()} text tokens, of which {supervised.sum()} are supervised (in double brackets)"
        )
        kinds = np.where(recall, "recall", np.where(visual, "kept", np.where(supervised, "supervised", "text")))
        runs = itertools.groupby(range(len(kinds)), key=lambda n: kinds[n])
        parts = [(kind, [int(sample.input_ids[n]) for n in numbers]) for kind, numbers in runs]
        yield "".join(_shown(processor.tokenizer, token_ids, kind) for kind, token_ids in parts)


def _find_row(folder: Path, number: int) -> Mapping[str, Any]:
    num_rows = 0
    for stream in stream_folders(folder):
        dataset = MdsDataset(stream)
        if 0 <= number - num_rows < len(dataset):
            return dataset[number - num_rows]
        num_rows += len(dataset)
    raise ConfigError(f"{folder} has no row {number}; use 0 to {num_rows - 1}")


def _describe_media(row: Mapping[str, Any]) -> str:
    if "video" in row:
        return f"video {row['video']}"
    images = row["image"] if isinstance(row["image"], list) else [row["image"]]
    return "images of " + ", ".join(f"{image.width} x {image.height} pixels" for image in images)


def _shown(tokenizer: Any, token_ids: list[int], kind: str) -> str:
    if kind in ("kept", "recall"):
        return f"<{len(token_ids)} {kind} tokens>"
    text: str = tokenizer.decode(token_ids)
    return f"[[{text}]]" if kind == "supervised" else text
