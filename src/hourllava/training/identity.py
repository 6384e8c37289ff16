"""The identity of a run: what must not change when a run is resumed. It is compared by content with the checkpoint's.

`plan.json` of a checkpoint holds an `Identity` and a digest of the order of samples. All other settings, such as rates,
decay and precision, may change between two starts of a run. A change is printed and applies from the next step.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from torch import nn

from hourllava.data.batches.samples import RowEncoder
from hourllava.errors import CheckpointError, ConfigError, TrainingError
from hourllava.inference.memories.encoder import weights_digest
from hourllava.training import checkpoints
from hourllava.training.corpus import OpenStream
from hourllava.training.recipe import RECIPE_NAME, LoraRecipe, Recipe, recipe_text
from hourllava.training.recipe_yaml import read_yaml

_NOT_OF_THE_WEIGHTS = (
    "out",
    "log",
    "checkpoints",
    "validation",
    "activations",
    "compile",
    "parallel",
    "data.workers",
    "data.prefetch",
    "data.max_failed_share",
    "data.any_encoder",
)
"""Settings that do not influence the trained weights, apart from rounding."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What must not change when a run is resumed.

    Attributes:
        streams: digest of each stream's content.
        encoding: what decides tokens and layouts of a shard row: tokenizer, sizes, forgetting, labels, questions,
            history.
        lora: rank and alpha of the adapters.
        trained: names and shapes of the parameters that get gradients.
        frozen: digest of all other weights; None without weights, as in a dry run.
    """

    streams: list[str]
    encoding: dict[str, Any]
    lora: dict[str, float] | None
    trained: list[str]
    frozen: str | None

    @classmethod
    def of(
        cls, streams: Sequence[OpenStream], encoder: RowEncoder, lora: LoraRecipe | None, model: nn.Module
    ) -> "Identity":
        """The identity of a run that is about to start."""
        config = encoder.processor.config
        parameters = dict(model.named_parameters())
        frozen = {name.replace(".", "/"): p for name, p in parameters.items() if not p.requires_grad}
        is_meta = any(parameter.is_meta for parameter in parameters.values())
        encoding = encoder.settings | {
            "history": encoder.history,  # settings name it only if there is any
            "labels": encoder.label_policy,
            "forgetting": dataclasses.asdict(config.forgetting),
            "memaug": config.memaug.to_dict(),
        }
        return cls(
            [stream.content_digest() for stream in streams],
            json.loads(json.dumps(encoding)),
            None if lora is None else {"rank": lora.rank, "alpha": lora.alpha},
            [f"{name} {list(p.shape)}" for name, p in parameters.items() if p.requires_grad],
            None if is_meta else weights_digest(nn.ParameterDict(frozen)),
        )

    def differences(self, before: "Identity", names: Sequence[str]) -> list[str]:
        """What has changed since, in words.

        Args:
            before: the checkpoint's identity.
            names: present names of the streams.
        """
        found = []
        if len(before.streams) != len(self.streams):
            found.append(f"data.streams has {len(self.streams)} streams, not {len(before.streams)}")
        else:
            changed = [name for name, old, new in zip(names, before.streams, self.streams) if old != new]
            found += [f"the data of stream {name} have changed" for name in changed]
        known = {key: value for key, value in self.encoding.items() if key in before.encoding}
        for key, (old, new) in _changes(before.encoding, before.encoding | known).items():
            found.append(
                "the tokenizer is another one" if key == "tokenizer" else f"{key} is {_short(new)}, not {_short(old)}"
            )
        if before.lora != self.lora:
            found.append(f"lora is {_short(self.lora)}, not {_short(before.lora)}")
        elif before.trained != self.trained:
            other = sorted(set(before.trained) ^ set(self.trained))
            found.append(
                f"other parameters are trained (learning_rates, lora.targets), such as {other[0]}"
                if other
                else "parameters are in another order"
            )
        elif self.frozen is not None and before.frozen is not None and before.frozen != self.frozen:
            found.append("`start` gives other weights to frozen parameters")
        return found


def check_identity(checkpoint: Path, ours: Identity, names: Sequence[str]) -> str | None:
    """Refuse to resume from a checkpoint of another run.

    Args:
        checkpoint: the checkpoint's folder.
        ours: identity of the run as it is now.
        names: names of its streams.

    Returns:
        a line for the user about what could not be compared; None if everything was compared.

    Raises:
        TrainingError: something has changed that must not change.
        CheckpointError: the checkpoint's record is damaged.
    """
    stored = _stored(checkpoint).get("identity")
    if stored is None:
        return (
            f"{checkpoint} was written by an older version: its order of samples can be compared, its data, labels and "
            "start cannot"
        )
    try:
        before = Identity(**stored)
        differences = ours.differences(before, names)
    except (TypeError, AttributeError) as error:
        raise _damaged(checkpoint, error) from error
    if differences:
        raise TrainingError(
            f"{checkpoint} belongs to another run: {'; '.join(differences)}. Undo the change, or start a new run with "
            "another `out` and `start: {checkpoint: ...}`"
        )
    return None


def check_order(checkpoint: Path, fingerprint: str) -> None:
    """Refuse to resume from a checkpoint of another plan.

    Raises:
        TrainingError: the plan is another one.
        CheckpointError: the checkpoint's record is damaged.
    """
    if _stored(checkpoint).get("fingerprint") != fingerprint:
        raise TrainingError(
            f"{checkpoint} belongs to another order of samples: batch, amounts, seed, epochs, lengths or the trained "
            "parts have changed. Undo the change, or start a new run with another `out` and `start: {checkpoint: ...}`"
        )


def check_finished(final: Path, recipe: Recipe) -> None:
    """Refuse a finished run of another recipe; settings that do not influence weights may differ.

    Raises:
        TrainingError: the recipe is another one.
    """
    before = read_recipe(final)
    changed = changed_settings(before, recipe, only_of_the_weights=True)
    if changed:
        what = ", ".join(changed[:4]) + (", ..." if len(changed) > 4 else "") if before else "the file cannot be read"
        raise TrainingError(
            f"{final} was trained by another recipe, {final / RECIPE_NAME} ({what}); choose another `out`, or remove "
            f"{recipe.out} to train anew"
        )


def describe_resume(checkpoint: Path, recipe: Recipe) -> list[str]:
    """Lines about a run that is resumed: its checkpoint, and the settings that have changed."""
    changed = changed_settings(read_recipe(checkpoint), recipe, only_of_the_weights=False)
    return [f"resuming from {checkpoint}", *(f"changed since {checkpoint.name}: {line}" for line in changed)]


def changed_settings(before: Mapping[str, Any], recipe: Recipe, *, only_of_the_weights: bool) -> list[str]:
    """Settings that differ between a written recipe and the present one, as `key: old -> new`.

    Args:
        before: content of the written recipe.
        recipe: the present recipe.
        only_of_the_weights: leave out settings that do not influence the trained weights.
    """
    with suppress(ValidationError):  # an older version may have written other settings
        before = yaml.safe_load(recipe_text(Recipe.model_validate(before)))
    lines = []
    for key, (old, new) in _changes(before, yaml.safe_load(recipe_text(recipe))).items():
        decides = not any(key == part or key.startswith(f"{part}.") for part in _NOT_OF_THE_WEIGHTS)
        if decides or not only_of_the_weights:
            lines.append(f"{key}: {_short(old)} -> {_short(new)}")
    return lines


def read_recipe(folder: Path) -> dict[str, Any]:
    """The recipe beside weights; empty if it is missing or unreadable."""
    try:
        content = read_yaml(folder / RECIPE_NAME)
    except ConfigError:
        return {}
    return content if isinstance(content, dict) else {}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], place: str = "") -> dict[str, tuple[Any, Any]]:
    """Old and new value of every key that differs, with dots between the levels; None for a missing value."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes |= _changes(old, new, f"{place}{key}.")
        elif old != new:
            changes[f"{place}{key}"] = old, new
    return changes


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _stored(checkpoint: Path) -> dict[str, Any]:
    content = checkpoints.read_json(checkpoint / checkpoints.PLAN)
    if not isinstance(content, dict):
        raise _damaged(checkpoint, "not a mapping")
    return content


def _damaged(checkpoint: Path, reason: object) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint / checkpoints.PLAN} is damaged ({reason}); remove that checkpoint to resume without it"
    )
