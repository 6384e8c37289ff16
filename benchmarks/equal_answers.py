"""Do questions that are asked together get the answers that they get alone? Nano on videos of MarathonWorld.

    python benchmarks/equal_answers.py --device cuda
    python benchmarks/equal_answers.py --device cuda --model runs/recalling/final

Nano's answers are short and often right. Those of random weights are not: one changed bit leads them elsewhere. A line
for each dtype:

    equal    answers that are the same, letter by letter
    first    answers whose first letter is the same
    right    answers that are right, alone and together
"""

import argparse
import tempfile
from pathlib import Path

import torch

from hourllava.evaluation.cases import world_cases
from hourllava.evaluation.scores import is_right
from hourllava.inference.engine import HourLlava
from hourllava.world.making.make import MakeSettings

WORLD = MakeSettings(
    videos=2, min_seconds=300, max_seconds=600, split="test", formats=("open",), per_task=1, container="reference"
)
SEED = 77


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    print(f"{where}, torch {torch.__version__}, {options.model}")
    with tempfile.TemporaryDirectory() as folder:
        cases = list(world_cases(WORLD.model_copy(update={"seed": SEED}), Path(folder)))
        for dtype in ("float32", "bfloat16"):
            num_asked, num_equal, num_first, right = 0, 0, 0, [0, 0]
            with HourLlava.from_pretrained(options.model, device=options.device, dtype=dtype) as engine:
                for case in cases:
                    memory = engine.watch(case.path, progress=False)
                    questions = [row.question for row in case.questions]
                    together = engine.ask_all(memory, questions, max_new_tokens=32)
                    for row, other in zip(case.questions, together, strict=True):
                        alone = engine.ask(memory, row.question, max_new_tokens=32)
                        num_asked += 1
                        num_equal += alone.text == other.text
                        num_first += alone.text[:1] == other.text[:1]
                        right[0] += is_right(alone.text, row.answer)
                        right[1] += is_right(other.text, row.answer)
            print(
                f"{dtype:<10}equal {num_equal}  first {num_first}  right {right[0]} / {right[1]}  of {num_asked}",
                flush=True,
            )


if __name__ == "__main__":
    main()
