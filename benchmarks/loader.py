"""What one loader process needs for the micro-batches of a recipe: seconds, and how many frames and tokens it gives.

    python benchmarks/loader.py recipes/hourllava-nano/s4.yaml --batches 20
    python benchmarks/loader.py my-run.yaml --set data.media=videos

The GPU waits if this time, divided by `data.workers`, is longer than a step. Needs no GPU and no weights. *Own CPU* is
the time without decoding processes. Rows that cannot be used are counted.
"""

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch

from hourllava.evaluation.report import markdown_table
from hourllava.training.corpus import SKIPPED_KEY
from hourllava.training.recipe import load_recipe
from hourllava.training.run import prepare

WARM_UP = 2  # batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the recipe")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in a loader process

    with tempfile.TemporaryDirectory() as folder:
        overrides = [*arguments.set, "data.workers=0", f"out={folder}", "log.to=[]"]
        corpus = prepare(load_recipe(arguments.recipe, overrides), meta=True).corpus
        walls, cpus, tokens, samples, views, skipped = [], [], 0, 0, 0, 0
        batches = iter(corpus.loader(Path(folder)))
        for _ in islice(batches, WARM_UP):
            pass
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in islice(batches, arguments.batches):
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
            tokens += batch["input_ids"].numel()
            samples += len(batch["segments"].lengths)
            skipped += int(batch[SKIPPED_KEY].sum())
            views += sum(len(batch[name]) for name in ("pixel_values", "pixel_values_videos") if name in batch)
            wall, cpu = time.perf_counter(), time.process_time()
    count = len(walls)
    if not count:
        parser.error(f"the recipe has no more than {WARM_UP} micro-batches")
    heads = ["", "median", "fastest", "slowest"]
    rows = [
        [name, *(f"{1000 * of(values):,.0f} ms" for of in (statistics.median, min, max))]
        for name, values in (("a micro-batch", walls), ("own CPU", cpus))
    ]
    print(markdown_table(heads, rows))
    print(
        f"{count} micro-batches; on average {samples / count:,.0f} samples, {tokens / count:,.0f} tokens and "
        f"{views / count:,.0f} pictures for the tower; {tokens / sum(walls):,.0f} tokens/s; {skipped:,} rows skipped"
    )


if __name__ == "__main__":
    main()
