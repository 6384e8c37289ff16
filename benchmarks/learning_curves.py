"""A figure of learning curves: the loss on videos, and the share of attention on the evidence.

    python benchmarks/learning_curves.py curves.png "stage 2=runs/hourllava-nano-s2/checkpoint-600" ...

It reads the `trainer_state.json` of each checkpoint, which holds all values logged up to that step.
"""

import argparse
import itertools
import json
from pathlib import Path

from hourllava.plotting import MUTED, TOPIC_COLOURS, new_figure, save_figure, styled_axes

PANELS = (("loss_video", "loss on videos", 1.0), ("evidence_share", "attention on the evidence, percent", 100.0))


def read_curves(checkpoint: Path) -> dict[str, list[tuple[int, float]]]:
    """The (step, value) pairs of each logged quantity."""
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return {key: [(entry["step"], entry[key]) for entry in history if key in entry] for key, _, _ in PANELS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="PNG or SVG")
    parser.add_argument("runs", nargs="+", metavar="LABEL=CHECKPOINT")
    options = parser.parse_args()
    runs = [run.rsplit("=", 1) for run in options.runs]
    curves = {label: read_curves(Path(checkpoint)) for label, checkpoint in runs}
    figure = new_figure(11, 4.2)
    for index, (key, title, factor) in enumerate(PANELS):
        axes = figure.add_axes((0.06 + 0.5 * index, 0.14, 0.42, 0.72))
        styled_axes(axes, title)
        for (label, of_run), colour in zip(curves.items(), itertools.cycle(TOPIC_COLOURS.values())):
            steps, values = [step for step, _ in of_run[key]], [factor * value for _, value in of_run[key]]
            axes.plot(steps, values, color=colour, linewidth=2, label=label)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("steps", color=MUTED)
        axes.legend(frameon=False, loc="lower right")
    print(save_figure(figure, options.out))


if __name__ == "__main__":
    main()
