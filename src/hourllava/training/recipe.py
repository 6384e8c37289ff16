"""Recipes: the complete definition of a training run, as validated YAML.

    # my-run.yaml
    base: recipes/hourllava-3b/s3.yaml       # one path or a list, relative to this file, or shipped; the last wins
    out: runs/mine
    start: {checkpoint: runs/hourllava-3b-s2/final}
    data: {streams: [{folder: shards/mine}], media: videos}

`load_recipe` merges the bases, then the file, then the `--set` values. Mappings are merged key by key; other values are
replaced. `learning_rates` are replaced as a whole, because a base's patterns may match no parameter of this run.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hourllava.data.batches.plan import Batching
from hourllava.data.batches.samples import Questions
from hourllava.errors import ConfigError
from hourllava.model.activation_checkpointing import Checkpointing
from hourllava.model.config import merge_settings
from hourllava.model.prompt import LabelPolicy
from hourllava.processes import usable_cores
from hourllava.training.recipe_yaml import parse_yaml, read_yaml

SHIPPED = "recipes"
RECIPE_NAME = "recipe.yaml"
"""File beside trained weights: the whole recipe, with bases and defaults."""

REPLACED_AS_A_WHOLE = frozenset({"learning_rates"})

MAX_DEFAULT_WORKERS = 4

Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
LabelWeights = Literal["tokens", "square", "answers"]


def _default_workers() -> int:
    """Loader processes: `MAX_DEFAULT_WORKERS`, or the number of usable cores if that is smaller."""
    return min(MAX_DEFAULT_WORKERS, usable_cores())


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Start(_Section):
    """Where the weights come from: a checkpoint, or random weights of a preset's configuration.

    A checkpoint is a folder, a name on the hub, or "nano", the model in the package.
    """

    checkpoint: str | None = None
    fresh_memaug: bool = False  # start with a random MemAug in place of the checkpoint's
    preset: str | None = None  # name of a shipped configuration
    tokenizer: str | None = None  # for a preset: a folder, a name on the hub, or "nano"
    decoder: str | None = None  # for a preset: checkpoint of a language model, in place of random weights
    vision_tower: str | None = None  # for a preset: checkpoint of a vision tower, in place of random weights
    model: dict[
        str, Any
    ] = {}  # changed fields of the model's configuration, such as {forgetting: {temporal: keyframe}}

    @model_validator(mode="after")
    def _one_of_two(self) -> "Start":
        if (self.checkpoint is None) == (self.preset is None):
            raise ValueError("give a checkpoint or a preset, one of the two")
        if (self.preset is None) != (self.tokenizer is None):
            raise ValueError("a preset needs a tokenizer; a checkpoint has its own")
        if self.preset is None and (self.decoder is not None or self.vision_tower is not None):
            raise ValueError("a decoder and a vision_tower go with a preset; a checkpoint has its own")
        if self.preset is not None and self.fresh_memaug:
            raise ValueError("fresh_memaug goes with a checkpoint; the MemAug of a preset is always random")
        return self


class StreamRecipe(_Section):
    """One folder of shards, and how much of it an epoch takes: all, unless one of the three amounts is given."""

    folder: str
    name: str | None = None  # for messages; by default the folder's name
    proportion: float | None = Field(default=None, ge=0)  # weight among the streams
    repeat: float | None = Field(default=None, ge=0)  # times an epoch takes the stream
    choose: int | None = Field(default=None, ge=0)  # samples an epoch takes


class DataRecipe(_Section):
    """The data, and how a record becomes samples."""

    streams: list[StreamRecipe] = Field(min_length=1)
    media: Path = Path()  # folder of the videos and features that the shards name
    batching: Batching = "mixed"
    questions: Questions = "conversation"  # questions of a record: turns of one sample, or samples sharing a memory
    history: int = Field(default=0, ge=0)  # with segments: most earlier questions in front of a question
    labels: LabelPolicy = "answers"
    label_weights: LabelWeights = "tokens"  # equal weight for tokens or answers; square: 1 / sqrt(length) a token
    answer_noise: float = Field(default=0, ge=0, le=1)  # share of answer tokens replaced by those of other answers
    grounding_weight: float = Field(default=0, ge=0)  # weight of the evidence loss, a token's is 1
    workers: int = Field(default_factory=_default_workers, ge=0)  # loader processes of each rank
    prefetch: Positive = 2  # micro-batches that each loader process reads ahead
    max_failed_share: float = Field(
        default=0.01, ge=0, le=1
    )  # more unreadable samples end the run, see docs/batching.md
    any_encoder: bool = False  # accept features of any vision tower, also while the tower is trained


class BatchRecipe(_Section):
    """The size of a step, see docs/batching.md."""

    token_budget: Positive = 32768  # most tokens of a micro-batch
    samples: float | None = Field(default=None, gt=0)  # mean samples of a step
    tokens: float | None = Field(default=None, gt=0)  # mean tokens of a step
    multiple_of: Positive = 8  # micro-batches of a step are a multiple of this: the most ranks of this run

    @model_validator(mode="after")
    def _one_of_two(self) -> "BatchRecipe":
        if (self.samples is None) == (self.tokens is None):
            raise ValueError("give samples or tokens, one of the two")
        return self


class ScheduleRecipe(_Section):
    """The learning rate over time."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, le=1)  # share of the steps
    epochs: Positive = 1
    max_steps: Positive | None = None  # ends run and schedule before the epochs do


class OptimizerRecipe(_Section):
    """AdamW."""

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)  # for matrices only, not for norms, biases and other vectors
    max_grad_norm: float = Field(default=1.0, ge=0)  # 0: no clipping


class LoraRecipe(_Section):
    """Low-rank adapters, trained in place of the weights of their layers and merged into every checkpoint."""

    targets: str = (
        r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"  # regular expression for names of linear layers
    )
    rank: Positive = 16
    alpha: float = Field(default=32.0, gt=0)

    @field_validator("targets")
    @classmethod
    def _is_an_expression(cls, targets: str) -> str:
        try:
            re.compile(targets)
        except re.error as error:
            raise ValueError(f"it is not a regular expression ({error})") from error
        return targets


class ParallelRecipe(_Section):
    """How several processes train: `fsdp` (FSDP2) shards weights, gradients and optimizer, `ddp` copies them."""

    kind: Literal["fsdp", "ddp"] = "fsdp"


class CheckpointRecipe(_Section):
    """When checkpoints are written, and how many are kept."""

    every_steps: Positive = 500
    keep: Positive = 2


class LogRecipe(_Section):
    """How often figures are logged, and where."""

    every_steps: Positive = 10
    to: list[Literal["tensorboard", "wandb", "trackio"]] = ["tensorboard"]


class ValidationRecipe(_Section):
    """Held-out data: its loss during training, and answers to its first records."""

    streams: list[StreamRecipe] = Field(min_length=1)
    every_steps: Positive = 500
    micro_batches: Positive = 32  # most micro-batches of a measurement
    answers: int = Field(default=4, ge=0)
    max_new_tokens: Positive = 64


class Recipe(_Section):
    """A training run."""

    out: Path
    start: Start
    data: DataRecipe
    batch: BatchRecipe
    learning_rates: dict[str, Annotated[float, Field(ge=0)]]  # name pattern -> rate; the last match decides
    schedule: ScheduleRecipe = ScheduleRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    lora: LoraRecipe | None = None
    precision: Literal["bf16", "fp32"] = "bf16"  # the computation's; weights and optimizer are always fp32
    activations: Checkpointing = "selective"  # what is kept for the backward pass
    compile: bool = False  # torch.compile the layers, see `hourllava.training.compilation`
    parallel: ParallelRecipe = ParallelRecipe()
    checkpoints: CheckpointRecipe = CheckpointRecipe()
    log: LogRecipe = LogRecipe()
    validation: ValidationRecipe | None = None
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @model_validator(mode="after")
    def _compiled_layers_recompute_nothing(self) -> "Recipe":
        if self.compile and self.activations != "none":
            raise ValueError(f"compile needs activations: none, not {self.activations}")
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with its bases.

    Args:
        path: a file, or a shipped recipe such as `recipes/hourllava-3b/s3.yaml`.
        overrides: changed settings as `key=value`, with dots for nesting and the value in YAML: `batch.samples=64`.

    Raises:
        ConfigError: a file is missing or is not YAML, a key is unknown or missing, or a value is not allowed.
    """
    content = _merged(_find(Path(path), Path()), ())
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override!r}; give key=value, such as batch.samples=64")
        value: Any = parse_yaml(text, f"--set {' '.join(override.split())[:200]}")
        for name in reversed(key.split(".")):
            value = {name: value}
        content = _merge(content, value)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_describe(error)}") from error


def recipe_text(recipe: Recipe) -> str:
    """The whole recipe, with bases and defaults, as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False)


def shipped_recipes() -> list[str]:
    """Paths of the recipes in the library, without mere bases (`_*.yaml`)."""
    folder = Path(str(resources.files("hourllava"))) / SHIPPED
    return sorted(path.relative_to(folder.parent).as_posix() for path in folder.rglob("[!_]*.yaml"))


def _find(path: Path, beside: Path) -> Path:
    """The file of a recipe: beside another recipe, in the working directory, or shipped."""
    library = Path(str(resources.files("hourllava")))
    for candidate in (beside / path, path, library / path):
        try:
            if candidate.is_file():
                return candidate
        except OSError as error:  # no file system takes such a name
            raise ConfigError(f"{str(path)[:80]!r} cannot be looked up ({error.strerror})") from error
    shipped = shipped_recipes()
    close = difflib.get_close_matches(path.as_posix(), shipped, n=1)
    guess = f", did you mean {close[0]}?" if close else ""
    raise ConfigError(f"there is no recipe {str(path)!r}{guess or ';'} shipped are {', '.join(shipped)}")


def _merged(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The content of a file, merged over its bases."""
    if path.resolve() in above:
        raise ConfigError(f"{path} is its own base; remove the ring of bases")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(content).__name__}")
    bases = content.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: base is the path of a recipe, or a list of paths, got {bases!r:.80}")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = _merge(merged, _merged(_find(Path(base), path.parent), (*above, path.resolve())))
    return _merge(merged, content)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    return merge_settings(below, above) | {key: above[key] for key in REPLACED_AS_A_WHOLE if key in above}


def _describe(error: ValidationError) -> str:
    """All problems on one line, with the known keys where a key is unknown."""
    parts = []
    for problem in error.errors():
        place = ".".join(map(str, problem["loc"])) or "the recipe"
        if problem["type"] == "extra_forbidden":
            section = _section(problem["loc"][:-1])
            known = f"; known are {', '.join(section.model_fields)}" if section else ""
            parts.append(f"{place} is not a setting{known}")
        elif problem["type"] == "missing":
            parts.append(f"{place} is missing")
        else:
            parts.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}, got {problem['input']!r:.80}")
    return "; ".join(parts)


def _section(place: Sequence[str | int]) -> type[BaseModel] | None:
    """The class of the section at a place."""
    section: type[BaseModel] = Recipe
    for key in place:
        if isinstance(key, int):
            continue
        found = _classes(section.model_fields[key].annotation)
        if not found:
            return None
        section = found[0]
    return section


def _classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in getattr(annotation, "__args__", ()) for kind in _classes(part)]
