"""Export of a trained checkpoint: weights, configuration, tokenizer, recipe and model card in one folder."""

import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from hourllava.errors import CheckpointError, ConfigError
from hourllava.files import replacing_folder
from hourllava.model.checkpoint import export_released, find_checkpoint, load_model, save_weights
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.adapters import ADAPTER
from hourllava.training.identity import read_recipe
from hourllava.training.recipe import RECIPE_NAME
from hourllava.training.recipe_yaml import read_yaml
from hourllava.training.weights import save_tokenizer

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def export_model(checkpoint: str, out: Path, *, released: bool = False) -> None:
    """Write a folder that `load_model` can read, and in our layout also transformers' Auto classes.

    Args:
        checkpoint: a folder, or a name on the hub.
        out: a new or empty folder.
        released: write the layout of `jylins/hourllava-*` instead of ours.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, the released layout cannot describe it, or `out` is not
            empty or cannot be written.
    """
    if out.is_dir() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty; choose a new folder, or remove it first")
    folder = find_checkpoint(checkpoint)
    recipe = _read_recipe(folder)
    model, _ = load_model(folder)
    processor = HourLlavaProcessor.from_pretrained(folder)
    try:
        with replacing_folder(out) as partial:
            if released:
                export_released(model, partial)
            else:
                save_weights(model.config, model.state_dict(), partial)
            save_tokenizer(processor.tokenizer, partial)
            if recipe:
                shutil.copyfile(folder / RECIPE_NAME, partial / RECIPE_NAME)
            if (folder / ADAPTER).is_dir():
                shutil.copytree(folder / ADAPTER, partial / ADAPTER)
            (partial / "README.md").write_text(model_card(out.name, model, recipe), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CheckpointError(
            f"{out} cannot be written ({reason}); free space there or choose another folder"
        ) from error


def model_card(name: str, model: HourLlavaForConditionalGeneration, recipe: dict[str, Any]) -> str:
    """A model card in Markdown, with the front matter that the hub reads.

    Args:
        name: the model's name.
        model: the model.
        recipe: the recipe that trained it; empty if unknown.
    """
    config = model.config
    text, vision = config.text_config, config.vision_config
    front: dict[str, Any] = {
        "library_name": "hourllava",
        "pipeline_tag": "video-text-to-text",
        "tags": ["hourllava", "video", "long-video"],
    }
    bases = _origins(recipe)
    if bases and _HUB_NAME.fullmatch(bases[-1]):
        front["base_model"] = bases[-1]
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        "<!-- Before publishing, add: the license, what the data is, how the model was evaluated. -->",
        "",
        f"# {name}",
        "",
        "A model for hour-long videos of the [Hour-LLaVA](https://arxiv.org/abs/2506.05332) architecture, for the "
        "`hourllava` library.",
        "",
        "```sh",
        f'hourllava ask lecture.mp4 "When is the first graph shown?" --model {name}',
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {num_parameters:,} |",
        f"| decoder | {text.model_type}, width {text.hidden_size}, {text.num_hidden_layers} layers |",
        f"| vision tower | {config.vision_tower_name or vision.model_type}, {vision.image_size} pixels, "
        f"{config.video_frame_tokens} tokens a frame |",
        f"| MemAug | {config.memaug.num_blocks} blocks |",
        f"| forgetting | {config.forgetting.spatial} in space, {config.forgetting.temporal} in time |",
    ]
    if recipe:
        streams = ", ".join(f"`{stream.get('name') or stream['folder']}`" for stream in recipe["data"]["streams"])
        lines += [
            "",
            "## Training",
            "",
            f"Started from {', which started from '.join(f'`{base}`' for base in bases)}; trained on {streams}. "
            "The whole recipe:",
            "",
            "```yaml",
            yaml.safe_dump(recipe, sort_keys=False).strip(),
            "```",
        ]
    return "\n".join(lines) + "\n"


def _read_recipe(folder: Path) -> dict[str, Any]:
    """The recipe beside a checkpoint; empty if there is none.

    Raises:
        CheckpointError: the file is damaged, or is not a recipe.
    """
    path = folder / RECIPE_NAME
    if not path.is_file():
        return {}
    try:
        recipe: dict[str, Any] = read_yaml(path)
        is_recipe = isinstance(recipe["start"], dict) and all(
            isinstance(stream["folder"], str) for stream in recipe["data"]["streams"]
        )
        reason = "`start` is not a mapping, or a stream has no folder"
    except (ConfigError, LookupError, TypeError) as error:
        is_recipe, reason = False, str(error)
    if not is_recipe:
        raise CheckpointError(f"{path} is not a recipe ({reason}); repair it, or remove it to export without it")
    return recipe


def _origins(recipe: dict[str, Any]) -> list[str]:
    """What the model started from, what that model started from, and so on, as far as their folders still exist."""
    origins: list[str] = []
    while isinstance(start := recipe.get("start"), dict):
        origin = str(start.get("checkpoint") or start.get("preset"))
        if origin in origins:
            break
        origins.append(origin)
        recipe = read_recipe(Path(origin))
    return origins
