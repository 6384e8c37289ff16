"""Does a model answer as well after earlier questions and answers as alone? Written answers about MarathonWorld.

    python benchmarks/several_turns.py --model nano
    python benchmarks/several_turns.py --model runs/hourllava-nano-s4/final --seed 91 --videos 15

Each question of a video is asked alone, and after the one to three questions before it in the video's list, with their
true answers. The last lines count right answers (exact match) both ways, by the number of earlier turns and in all.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from hourllava.evaluation.cases import world_cases
from hourllava.evaluation.scores import is_right
from hourllava.inference.engine import HourLlava
from hourllava.world.making.make import MakeSettings

MOST_EARLIER = 3


def main() -> None:
    """Print right answers, alone and after others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--videos", type=int, default=15)
    parser.add_argument("--seed", type=int, default=91, help="of the videos")
    options = parser.parse_args()
    world = MakeSettings(
        videos=options.videos,
        seed=options.seed,
        min_seconds=30,
        max_seconds=120,
        split="test",
        formats=("open",),
        per_task=1,
        container="reference",
    )
    asked: Counter[int] = Counter()
    right: Counter[tuple[str, int]] = Counter()
    with tempfile.TemporaryDirectory() as folder, HourLlava.from_pretrained(options.model) as engine:
        for case in world_cases(world, Path(folder)):
            memory = engine.watch(case.path, progress=False)
            turns = [(row.question, row.answer) for row in case.questions]
            alone = engine.ask_all(memory, [question for question, _ in turns], max_new_tokens=48)
            for place, (question, truth) in enumerate(turns):
                num_earlier = min(place, 1 + place % MOST_EARLIER)
                if not num_earlier:
                    continue
                history = turns[place - num_earlier : place]
                answer = engine.ask(memory, question, history=history, max_new_tokens=48)
                asked[num_earlier] += 1
                right["alone", num_earlier] += is_right(alone[place].text, truth)
                right["after", num_earlier] += is_right(answer.text, truth)
            print(f"{case.path.name}: {asked.total()} questions so far", flush=True)
    for num_earlier in sorted(asked):
        print(
            f"{num_earlier} earlier: {right['alone', num_earlier]} right alone, "
            f"{right['after', num_earlier]} after others, of {asked[num_earlier]}"
        )
    alone, after = (sum(right[way, number] for number in asked) for way in ("alone", "after"))
    print(f"{options.model}: {alone} right alone, {after} after one to {MOST_EARLIER} others, of {asked.total()}")


if __name__ == "__main__":
    main()
