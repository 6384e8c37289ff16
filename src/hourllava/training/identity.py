"""What a run is, so that it cannot go on as another one: compared by content with what its checkpoint has kept.

`plan.json` of a checkpoint holds an `Identity` and the digest of the order of samples. Rates, decay, precision and
whatever else a recipe says may change between two starts of a run; it counts from then on, and is told.
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
from hourllava.inference.encoder import weights_digest
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
"""Settings that have no part in what the weights become, but for rounding."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What may not change while a run goes on.

    Attributes:
        streams: digest of the content of each.
        encoding: what makes tokens and layouts of a row: tokenizer, sizes, forgetting, labels, questions.
        lora: rank and alpha of adapters.
        trained: names and shapes of the parameters that get gradients.
        frozen: digest of all other weights; None if there are no weights, as in a dry run.
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
        """The identity of a run that is about to begin."""
        config = encoder.processor.config
        parameters = dict(model.named_parameters())
        frozen = {name.replace(".", "/"): p for name, p in parameters.items() if not p.requires_grad}
        is_meta = any(parameter.is_meta for parameter in parameters.values())
        encoding = encoder.settings | {
            "labels": encoder.label_policy,
            "forgetting": dataclasses.asdict(config.forgetting),
            "memaug": dataclasses.asdict(config.memaug),
        }
        return cls(
            [stream.content_digest() for stream in streams],
            json.loads(json.dumps(encoding)),
            None if lora is None else {"rank": lora.rank, "alpha": lora.alpha},
            [f"{name} {list(p.shape)}" for name, p in parameters.items() if p.requires_grad],
            None if is_meta else weights_digest(nn.ParameterDict(frozen)),
        )

    def differences(self, before: "Identity", names: Sequence[str]) -> list[str]:
        """What is no longer as it was, in words.

        Args:
            before: of the checkpoint.
            names: of the streams as they are now.
        """
        found = []
        if len(before.streams) != len(self.streams):
            found.append(f"data.streams are {len(self.streams)}, not {len(before.streams)}")
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
            found.append("`start` gives other weights to what is not trained")
        return found


def check_identity(checkpoint: Path, ours: Identity, names: Sequence[str]) -> str | None:
    """Refuse to go on from a checkpoint of a run that was another one.

    Args:
        checkpoint: its folder.
        ours: identity of the run as it is now.
        names: of its streams.

    Returns:
        what could not be compared, for the user; None if all was.

    Raises:
        TrainingError: something that may not change has changed.
        CheckpointError: the checkpoint's record is damaged.
    """
    stored = _stored(checkpoint).get("identity")
    if stored is None:
        return (
            f"{checkpoint} was written by an older version: of data, labels and start only the order of samples can be "
            "compared"
        )
    try:
        before = Identity(**stored)
        differences = ours.differences(before, names)
    except (TypeError, AttributeError) as error:
        raise _damaged(checkpoint, error) from error
    if differences:
        raise TrainingError(
            f"{checkpoint} belongs to another run: {'; '.join(differences)}. Set that back, or begin a new run with "
            "another `out` and `start: {checkpoint: ...}`"
        )
    return None


def check_order(checkpoint: Path, fingerprint: str) -> None:
    """Refuse to go on from a checkpoint whose plan was another one.

    Raises:
        TrainingError: it was.
        CheckpointError: the checkpoint's record is damaged.
    """
    if _stored(checkpoint).get("fingerprint") != fingerprint:
        raise TrainingError(
            f"{checkpoint} belongs to another order of samples: batch, amounts, seed, epochs, lengths or which parts "
            "are trained have changed since. Set them back, or begin a new run with another `out` and `start: "
            "{checkpoint: ...}`"
        )


def check_finished(final: Path, recipe: Recipe) -> None:
    """Refuse a finished run that was another one; settings that do not decide its weights may differ.

    Raises:
        TrainingError: it was.
    """
    before = read_recipe(final)
    changed = changed_settings(before, recipe, only_of_the_weights=True)
    if changed:
        what = ", ".join(changed[:4]) + (", ..." if len(changed) > 4 else "") if before else "which cannot be read"
        raise TrainingError(
            f"{final} was trained by another recipe, {final / RECIPE_NAME} ({what}); choose another `out`, or remove "
            f"{recipe.out} to train anew"
        )


def told_of(checkpoint: Path, recipe: Recipe) -> list[str]:
    """Lines about a run that goes on: from where, and what the recipe has otherwise than before."""
    changed = changed_settings(read_recipe(checkpoint), recipe, only_of_the_weights=False)
    return [f"going on from {checkpoint}", *(f"changed since {checkpoint.name}: {line}" for line in changed)]


def changed_settings(before: Mapping[str, Any], recipe: Recipe, *, only_of_the_weights: bool) -> list[str]:
    """Settings that a recipe has otherwise than one that was written before: `key: old -> new`.

    Args:
        before: content of a written recipe.
        recipe: as it is now.
        only_of_the_weights: leave out settings that have no part in what the weights become.
    """
    with suppress(ValidationError):  # an older version's may lack settings that have defaults, or have others
        before = yaml.safe_load(recipe_text(Recipe.model_validate(before)))
    lines = []
    for key, (old, new) in _changes(before, yaml.safe_load(recipe_text(recipe))).items():
        decides = not any(key == part or key.startswith(f"{part}.") for part in _NOT_OF_THE_WEIGHTS)
        if decides or not only_of_the_weights:
            lines.append(f"{key}: {_short(old)} -> {_short(new)}")
    return lines


def read_recipe(folder: Path) -> dict[str, Any]:
    """The recipe that was written beside weights; empty if there is none that can be read."""
    try:
        content = read_yaml(folder / RECIPE_NAME)
    except ConfigError:
        return {}
    return content if isinstance(content, dict) else {}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], place: str = "") -> dict[str, tuple[Any, Any]]:
    """Old and new value of every key, dots between the levels, that is not the same; None for one that is not there."""
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
        raise _damaged(checkpoint, "no mapping")
    return content


def _damaged(checkpoint: Path, reason: object) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint / checkpoints.PLAN} is damaged ({reason}); remove that checkpoint to go on without it"
    )
