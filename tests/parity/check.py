"""Compare this library with tensors computed by the released model.

    python tests/parity/check.py tests/parity/golden

prints one line per case and exits with 1 if anything differs by more than 1e-4, differs at all where it must be equal,
or is missing. Any folder laid out like `golden/` will do: model folders in the released layout, cases as
`NAME.safetensors`, and (if there is a README.md with a table of cases) every case of that table.
"""

import argparse
import copy
import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from hourllava.errors import HourLlavaError
from hourllava.model.batch import VisualSample, batch_visuals
from hourllava.model.checkpoint import load_model
from hourllava.model.config import HourLlavaConfig
from hourllava.model.layout import VisualLayout, best_tile_grid, image_layout, tiled_image_layout, video_layout
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.vision import frame_pixels, normalised, square_image_pixels, tiled_image_pixels
from hourllava.model.visuals import Visuals

TOLERANCE = 1e-4
PLACEHOLDER = -200  # of the released model; also used as our visual token id here, so that no text id can collide
IGNORED = -100


class Case:
    """The tensors and metadata of one golden file."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            keys = file.keys()
            self.tensors = {key: file.get_tensor(key) for key in keys}
        self.modalities: list[str] = json.loads(metadata["modalities"])
        self.image_sizes: list[list[int] | None] = json.loads(metadata["image_sizes"])

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def kept(self) -> Iterator[np.ndarray]:
        """Patch indices of the released model's spatial-forgetting calls, in order."""
        number = 0
        while f"kept{number}" in self.tensors:
            yield self.tensors[f"kept{number}"].numpy()
            number += 1


@dataclasses.dataclass
class Visual:
    """One sample's layout with the golden choice of tokens, how this library makes it, and its features or pixels."""

    layout: VisualLayout
    make: Callable[[HourLlavaConfig], VisualLayout]
    pixels: Tensor | None = None
    features: Tensor | None = None


@dataclasses.dataclass
class Result:
    """What one case gave."""

    name: str
    errors: dict[str, float]
    equal: dict[str, bool]

    @property
    def passed(self) -> bool:
        """Whether everything is as it must be; NaN is not."""
        return all(error <= TOLERANCE for error in self.errors.values()) and all(self.equal.values())

    def __str__(self) -> str:
        errors = "  ".join(f"{key} {value:.1e}" for key, value in self.errors.items())
        equal = "  ".join(f"{key} {'equal' if value else 'DIFFERENT'}" for key, value in self.equal.items())
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name:24} max error: {errors}   {equal}"


def formula_features(num_frames: int, seed: int) -> Tensor:
    """[T, 64, 1152] features of the golden README's formula."""
    n = torch.arange(num_frames, dtype=torch.float64)[:, None, None]
    p = torch.arange(64, dtype=torch.float64)[None, :, None]
    c = torch.arange(1152, dtype=torch.float64)[None, None, :]
    return torch.sin(0.11 * (n + 1 + seed) * ((c % 37) + 1) / 7 + 0.7 * p + 0.013 * c).float()


def visual_samples(case: Case, config: HourLlavaConfig) -> tuple[list[Visual | None], float]:
    """Each row's visual (None for text), and the largest difference of pixels made by us from golden pixels."""
    visuals: list[Visual | None] = []
    kept = case.kept()
    pixel_error = 0.0
    if (case["input_ids"] == PLACEHOLDER).sum(1).max() > 1:
        images = [Image.fromarray(case[f"image{n}_uint8"].numpy()) for n in range(len(case.modalities))]
        pixels = normalised(square_image_pixels(images, config), config)
        pixel_error = (pixels - case["pixel_values"]).abs().max().item()
        make = functools.partial(image_layout, len(images))
        return [Visual(make(config, spatial_kept=next(kept)), make, pixels=case["pixel_values"])], pixel_error

    for modality, size in zip(case.modalities, case.image_sizes):
        if modality == "text":
            next(kept)  # the released model runs a dummy image through
            visuals.append(None)
        elif modality == "video":
            features = pixels = None
            if "frames" in case:
                num_frames, seed = case["frames"].tolist()
                features = formula_features(num_frames, seed)
            else:
                pixels = case["video_pixel_values"] if "video_pixel_values" in case else case["pixel_values"]
                num_frames = len(pixels)
            if "frames_uint8" in case:
                frames = [Image.fromarray(frame.numpy()) for frame in case["frames_uint8"]]
                side = config.vision_config.image_size
                resized = [np.asarray(frame.resize((side, side), Image.Resampling.BICUBIC)) for frame in frames]
                own = normalised(frame_pixels(torch.from_numpy(np.stack(resized)), config), config)
                pixel_error = max(pixel_error, (own - case["pixel_values"]).abs().max().item())
            make = functools.partial(video_layout, num_frames)
            visuals.append(Visual(make(config, spatial_kept=next(kept)), make, pixels, features))
        else:
            pixels = case["image_pixel_values"] if "image_pixel_values" in case else case["pixel_values"]
            if "image_uint8" in case:
                own = normalised(tiled_image_pixels(Image.fromarray(case["image_uint8"].numpy()), config), config)
                pixel_error = max(pixel_error, (own - pixels).abs().max().item())
            assert size is not None
            if len(pixels) == 1:
                make = functools.partial(image_layout, 1)
                visuals.append(Visual(make(config, spatial_kept=next(kept)), make, pixels))
            else:
                assert best_tile_grid(*size, config).num_views == len(pixels), "another tile grid"
                make = functools.partial(tiled_image_layout, *size)
                chosen = (next(kept).ravel(), next(kept).ravel())
                visuals.append(Visual(make(config, spatial_kept=chosen), make, pixels))
    return visuals, pixel_error


def expand(row: Tensor, labels: Tensor, visual: Visual | None) -> tuple[Tensor, Tensor]:
    """Ids and labels with each placeholder repeated once per kept token."""
    counts = iter(visual.layout.kept_per_visual if visual else ())
    repeats = torch.tensor([next(counts) if token == PLACEHOLDER else 1 for token in row.tolist()])
    return row.repeat_interleave(repeats), labels.repeat_interleave(repeats)


def check_case(case: Case, model: HourLlavaForConditionalGeneration) -> Result:
    """Run one case through the model's public parts and compare."""
    config = model.config
    visuals, pixel_error = visual_samples(case, config)
    masks = case["attention_mask"] if "attention_mask" in case else torch.ones_like(case["input_ids"])
    rows = [
        expand(ids[mask.bool()], labels[mask.bool()], visual)
        for ids, labels, mask, visual in zip(case["input_ids"], case["labels"], masks, visuals)
    ]
    length = max(len(ids) for ids, _ in rows)
    input_ids = torch.stack([torch.nn.functional.pad(ids, (0, length - len(ids))) for ids, _ in rows])
    labels = torch.stack(
        [torch.nn.functional.pad(labels, (0, length - len(labels)), value=IGNORED) for _, labels in rows]
    )
    mask = torch.stack([(torch.arange(length) < len(ids)).long() for ids, _ in rows])

    samples = []
    for number, ((ids, row_labels), visual) in enumerate(zip(rows, visuals)):
        if visual is not None:
            is_visual = (ids == PLACEHOLDER).numpy()
            is_prompt_text = (row_labels == IGNORED).numpy() & ~is_visual
            samples.append(VisualSample(visual.layout, number * length, is_visual, is_prompt_text))
    batch = batch_visuals(samples)

    pixels = {"image": [], "video": []}
    features = []
    for visual in visuals:
        if visual is not None and visual.features is not None:
            features.append(visual.features)
        elif visual is not None:
            pixels[visual.layout.modality].append(visual.pixels)
    with torch.no_grad():
        embeds = model.model.embed(
            input_ids,
            batch
            and Visuals(
                batch,
                pixels={modality: torch.cat(parts) for modality, parts in pixels.items() if parts},
                features={"video": torch.cat(features)} if features else {},
            ),
        )
        # The released model cuts the sequence after MemAug.
        embeds, labels, mask = (part[:, : config.max_sequence_tokens] for part in (embeds, labels, mask))
        # One pass through the decoder, most of the time of a check; without padding it needs no mask.
        output = model(
            inputs_embeds=embeds,
            attention_mask=None if mask.all() else mask,
            labels=labels,
            output_hidden_states=True,
        )
        tail_length = case["expected_logits_tail"].shape[1]
        logits, loss = model.lm_head(output.hidden_states[-1][:, -tail_length:]), output.loss

    real = case["expected_attention_mask"].bool()
    real_tail = real[:, -tail_length:]

    def difference(ours: Tensor, golden: Tensor) -> float:
        return (ours - golden).abs().max().item() if ours.shape == golden.shape else float("inf")

    same_shape = real.shape == mask.shape
    errors = {
        "embeddings": difference(embeds[real], case["expected_inputs_embeds"][real]) if same_shape else float("inf"),
        "logits": difference(logits[real_tail], case["expected_logits_tail"][real_tail])
        if same_shape
        else float("inf"),
        "loss": difference(loss.reshape(1), case["expected_loss"].reshape(1)),
        "pixels": pixel_error,
    }
    equal = {
        "ids": same_shape and mask.sum(1).tolist() == real.sum(1).tolist(),
        "labels": torch.equal(labels, case["expected_labels"]),
        "masks": torch.equal(mask, case["expected_attention_mask"]),
        "positions": positions_agree(case, visuals, batch),
    }
    random_config = copy.deepcopy(config)
    random_config.forgetting = dataclasses.replace(config.forgetting, spatial="random")
    present = [visual for visual in visuals if visual is not None]
    if all(np.array_equal(visual.layout.kept_index, visual.make(config).kept_index) for visual in present):
        equal["kept"] = True
    else:  # a random choice cannot be made again, only its count can
        equal["kept count"] = all(
            len(visual.layout.kept_index) == len(visual.make(random_config).kept_index) for visual in present
        )
    return Result(case.name, errors, equal)


def positions_agree(case: Case, visuals: list[Visual | None], batch: object) -> bool:
    """Whether MemAug's query and memory positions are the released ones (text rows have none of ours)."""
    agree = True
    segment = 0
    for number, visual in enumerate(visuals):
        if visual is None:
            continue
        start, end = batch.query_segments.offsets[segment : segment + 2]
        segment += 1
        memory, queries = f"memaug{number}_memory_positions", f"memaug{number}_query_positions"
        agree &= np.array_equal(case[memory].numpy(), visual.layout.memory_positions)
        agree &= np.array_equal(case[queries].numpy(), batch.query_positions[start:end].numpy())
    return bool(agree)


def listed_cases(root: Path) -> dict[str, str]:
    """Case and model folder of each row of the README's table `| file | model | ... |`; empty if there is none."""
    readme = root / "README.md"
    if not readme.is_file():
        return {}
    rows = re.findall(r"^\| *`?(\w+)`? *\| *`?(\w+)`? *\|", readme.read_text(), flags=re.MULTILINE)
    return {case: model for case, model in rows if case != "file"}


def model_folder(root: Path, case: Case) -> Path:
    """The model a case was computed with: as listed, else the folder for features or for pixels."""
    kind = "features" if "frames" in case else "pixels"
    named = listed_cases(root).get(case.name, f"tiny_{kind}")
    others = sorted(path.parent for path in root.glob(f"*{kind}*/config.json"))
    return root / named if (root / named).is_dir() or not others else others[0]


def load_golden_model(folder: Path) -> HourLlavaForConditionalGeneration:
    """A folder's model, with the golden cases' id of visual tokens."""
    model, _ = load_model(folder, dtype=torch.float32)
    model.config.visual_token_id = PLACEHOLDER
    return model


def check_folder(root: Path) -> Iterator[Result]:
    """Results of all cases of a folder as they are computed; one that is missing or breaks gives a failed result."""
    models: dict[Path, HourLlavaForConditionalGeneration] = {}
    found = {path.stem for path in root.glob("*.safetensors")}
    for name in sorted(found | set(listed_cases(root))):
        path = root / f"{name}.safetensors"
        if not path.is_file():
            yield Result(f"{name} (missing)", {}, {"file": False})
            continue
        try:
            case = Case(path)
            folder = model_folder(root, case)
            if folder not in models:
                models[folder] = load_golden_model(folder)
            yield check_case(case, models[folder])
        except (HourLlavaError, KeyError, AssertionError, StopIteration) as error:
            yield Result(f"{name} ({type(error).__name__}: {error})", {}, {"case": False})


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per case; 0 if there are cases and all pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder laid out like tests/parity/golden")
    folder = parser.parse_args(arguments).folder
    passed = []
    for result in check_folder(folder):
        print(result, flush=True)
        passed.append(result.passed)
    print(f"{sum(passed)} of {len(passed)} cases pass (tolerance {TOLERANCE:g})")
    return 0 if passed and all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
