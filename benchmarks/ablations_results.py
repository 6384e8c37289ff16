"""What a plan of `ablations.py` has found, in one small file, so that trained models need not be kept.

`results.json` holds, for each unit, the losses of its training and whether each question was answered rightly: 30 kB a
unit. The table is made from it. Where another machine finds this file, it leaves out the units whose evaluations are
all in there.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ablations_plan import Plan, Variant, evaluation_folder, unit_folder
from hourllava.errors import ConfigError
from hourllava.evaluation.results import ANSWERS_NAME, SCORES_NAME, read_answers
from hourllava.evaluation.scores import AnsweredQuestion, shows_moment
from hourllava.files import replacing
from hourllava.training.checkpoints import checkpoints

RESULTS_NAME = "results.json"
CURVES = ("loss_video", "evidence_share")


class Reply(BaseModel):
    """How a question was answered."""

    model_config = ConfigDict(frozen=True)
    id: str
    video: str
    format: str
    task: str
    right: bool
    shown: bool | None  # whether the evidence shows the card; None where no single card answers the question

    @classmethod
    def of(cls, one: AnsweredQuestion) -> "Reply":
        shown = shows_moment(one) if one.is_needle else None
        return cls(id=one.id, video=one.video, format=one.format, task=one.task, right=one.right["video"], shown=shown)


class Unit(BaseModel):
    """What a unit has found."""

    settings: dict[str, Any] = {}
    curves: dict[str, list[tuple[int, float]]] = {}  # (step, value) of the last stage
    replies: dict[str, list[Reply]] = {}  # by evaluation


class Results:
    """The results of a plan.

    Args:
        plan: whose units are looked for.
        folder: of results.json, which may be there already.

    Raises:
        ConfigError: the file there is no results.json.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.path = plan, folder / RESULTS_NAME
        self.units: dict[str, Unit] = {}
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                self.units = {name: Unit.model_validate(unit) for name, unit in content.items()}
            except (ValueError, ValidationError, AttributeError) as error:
                raise ConfigError(f"{self.path} cannot be read: {' '.join(str(error).split())}") from error

    def unit(self, variant: Variant, seed: int) -> Unit:
        """What is known of a unit."""
        return self.units.setdefault(unit_folder(self.plan, variant, seed).name, Unit())

    def is_whole(self, variant: Variant, seed: int) -> bool:
        """Whether all evaluations of a unit, and of those that ask its model, are known."""
        asked = [variant, *(one for one in self.plan.variants if one.of == variant.name)]
        return all(self.plan.evaluations.keys() <= self.unit(one, seed).replies.keys() for one in asked)

    def collect(self) -> None:
        """Add what finished steps have left in the units' folders, and write the file."""
        for seed in self.plan.seeds:
            for variant in self.plan.variants:
                self._collect(variant, seed)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = {name: unit.model_dump() for name, unit in self.units.items() if unit.curves or unit.replies}
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")

    def _collect(self, variant: Variant, seed: int) -> None:
        unit = self.unit(variant, seed)
        for name in self.plan.evaluations.keys() - unit.replies.keys():
            folder = evaluation_folder(self.plan, variant, seed, name)
            if (folder / SCORES_NAME).exists():
                unit.settings = self.plan.common | variant.set
                unit.replies[name] = [Reply.of(one) for one in read_answers(folder / ANSWERS_NAME)]
        if curves := dict(_curves(unit_folder(self.plan, variant, seed))):
            unit.curves = curves


def _curves(folder: Path) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """The curves of the last stage's last checkpoint."""
    stages = sorted(folder.glob("stage-*"))
    found = checkpoints(stages[-1]) if stages else []
    if not found:
        return
    history = json.loads((found[-1] / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    for key in CURVES:
        if points := [(entry["step"], entry[key]) for entry in history if key in entry]:
            yield key, points
