"""How much a nano in training has learnt: exact match on new pictures and videos by kind of question, in seconds.

    python benchmarks/exact_match.py runs/hourllava-nano-s2/checkpoint-500 --seconds 8-30 --seconds 60-180

An answer is right if each of its tokens, including the end, is the likeliest one after the true tokens before it.
Greedy decoding would then write it, so one forward pass over packed questions replaces decoding. `hourllava eval world`
asks as users do, but takes hours instead of seconds. Seeds, sentences and objects belong to the test split.
`--split train` shows whether errors come from new combinations or from too little training.

It prints a line of percentages for the pictures and for each range of lengths: open-ended answers by template, and the
same with `/mc` for multiple choice; the number of questions is in brackets.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hourllava.data.batches.samples import RowEncoder
from hourllava.data.records.models import training_record
from hourllava.model.checkpoint import load_model
from hourllava.model.head import Targets
from hourllava.model.inputs import Sample
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.world.drawing.render import Renderer
from hourllava.world.generate import DIFFICULTIES, generate_script
from hourllava.world.making.pictures import exchange_turns
from hourllava.world.making.records import question_rows
from hourllava.world.questions.stills import still_at, still_exchange
from hourllava.world.reference import REFERENCE_SUFFIX, Reference, write_reference
from hourllava.world.rng import Draws
from hourllava.world.vocabulary import SPLITS, Split

Asked = tuple[dict[str, Any], list[str]]
"""A shard row with several questions, and the kind of each question."""

QUESTIONS_PER_ROW = 12
PICTURE_SECONDS = (12, 64)  # length of the videos that pictures come from


def pictures(number: int, split: Split, draws: Draws, size_pixels: int) -> Iterator[Asked]:
    """Frames in which nothing moves, with questions about each."""
    for _ in range(number):
        script = generate_script(draws.below(2**53), draws.between(*PICTURE_SECONDS), split=split)
        still = draws.pick([found for time in range(script.duration_seconds) if (found := still_at(script, time))])
        image = Image.fromarray(Renderer(script, size_pixels).frame(still.time_seconds))
        exchanges = [still_exchange(still, split, draws) for _ in range(QUESTIONS_PER_ROW)]
        turns = [turn.model_dump(by_alias=True) for turn in exchange_turns(exchanges, 1)]
        kinds = [kind_of(exchange.template, bool(exchange.options)) for exchange in exchanges]
        yield {"image": image, "text": {"image": "picture", "conversations": turns}}, kinds


def videos(
    number: int, low: int, high: int, split: Split, draws: Draws, size_pixels: int, folder: Path
) -> Iterator[Asked]:
    """References of `low` to `high` seconds in `folder`, with a question of each task and format."""
    for index in range(number):
        reference = Reference(
            seed=draws.below(2**53),
            duration_seconds=draws.between(low, high),
            split=split,
            density=DIFFICULTIES["normal"],
            needles=None,
            size_pixels=size_pixels,
        )
        name = f"{low}-{high}-{index}{REFERENCE_SUFFIX}"
        write_reference(reference, folder / name)
        rows = list(question_rows(reference.script(), name, 1))
        for start in range(0, len(rows), QUESTIONS_PER_ROW):
            part = rows[start : start + QUESTIONS_PER_ROW]
            turns = [turn.model_dump(by_alias=True) for row in part for turn in training_record(row).conversations]
            kinds = [kind_of(row.template or "", row.answer_index is not None) for row in part]
            yield {"video": name, "text": {"conversations": turns}}, kinds


def kind_of(template: str, is_choice: bool) -> str:
    return f"{template}/mc" if is_choice else template


def batches(asked: Iterable[Asked], encoder: RowEncoder, token_budget: int) -> Iterator[tuple[list[Sample], list[str]]]:
    """Samples packed up to the token budget, and the kinds of their questions."""
    samples: list[Sample] = []
    kinds: list[str] = []
    for row, row_kinds in asked:
        more = encoder(row, 0)
        if samples and sum(len(sample.input_ids) for sample in (*samples, *more)) > token_budget:
            yield samples, kinds
            samples, kinds = [], []
        samples += more
        kinds += row_kinds
    if samples:
        yield samples, kinds


@torch.inference_mode()
def exact_matches(
    model: HourLlavaForConditionalGeneration, processor: HourLlavaProcessor, samples: Sequence[Sample]
) -> list[bool]:
    """For each sample: whether all supervised tokens are the likeliest ones."""
    inputs = processor.collate_packed(samples).to(model.device)
    targets = Targets.of(inputs.pop("labels"), None)
    hidden_ND = model.model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    places = targets.places_S
    is_right = torch.ones(len(hidden_ND), dtype=torch.bool, device=hidden_ND.device)
    is_right[places] = model.lm_head(hidden_ND[places]).argmax(-1) == targets.ids_N[places]
    return [bool(part.all()) for part in is_right.split(inputs["segments"].lengths)]


def measure(
    asked: Iterable[Asked], model: HourLlavaForConditionalGeneration, encoder: RowEncoder, token_budget: int
) -> str:
    """A line of percentages; those of all open-ended and all multiple-choice questions come first."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for samples, kinds in batches(asked, encoder, token_budget):
        for kind, is_right in zip(kinds, exact_matches(model, encoder.processor, samples), strict=True):
            for counted in (kind, kind_of("ALL", kind.endswith("/mc"))):
                total[counted] += 1
                right[counted] += is_right
    return "  ".join(f"{kind} {right[kind] / count:.0%} ({count})" for kind, count in sorted(total.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of a nano")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument(
        "--seconds", action="append", default=[], help="range of video lengths, such as 8-30; may be repeated"
    )
    parser.add_argument("--videos", type=int, default=20, help="number of videos per range")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--token-budget", type=int, default=16384)
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model, _ = load_model(options.checkpoint, device="cuda" if on_gpu else "cpu", dtype=dtype)
    torch.backends.cuda.enable_cudnn_sdp(False)  # another plan for every batch
    size_pixels = model.config.vision_config.image_size
    with tempfile.TemporaryDirectory() as temporary:
        encoder = RowEncoder(
            HourLlavaProcessor.from_pretrained(options.checkpoint), Path(temporary), questions="segments"
        )
        draws = Draws("exact match", options.seed, options.split)
        asked = pictures(options.pictures, options.split, draws, size_pixels)
        print("pictures:", measure(asked, model, encoder, options.token_budget), flush=True)
        for text in options.seconds:
            low, high = map(int, text.split("-"))
            asked = videos(options.videos, low, high, options.split, draws, size_pixels, Path(temporary))
            print(f"{text} s:", measure(asked, model, encoder, options.token_budget), flush=True)


if __name__ == "__main__":
    main()
