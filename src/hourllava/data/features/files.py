"""Feature files of pre-extraction: their names, forms and settings, and whether a file that exists can stay.

    v.safetensors       a `Memory`: bfloat16 [T, grid * grid, C], times, the video's digest, the encoder's identity
    v.int8.safetensors  the same with int8 features and a float32 scale for each token of each frame
    v.pt                the release's pickle `{"vid_feat": [T, grid * grid, C], "duration": seconds}`

Released files name neither video nor encoder: `features.json` names the encoder of all files in its folder.
"""

import math
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from hourllava.errors import DataError, InputError, MemoryFileError
from hourllava.files import replacing
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.memory_file import (
    damaged,
    num_released_frames,
    open_released_features,
    read_fields,
    read_memory_file,
    write_memory_file,
)
from hourllava.inference.memories.snapshot import WatchedSource

Form = Literal["memory", "released"]
Storage = Literal["bfloat16", "int8"]
SETTINGS_NAME = "features.json"
MIN_RELEASED_FRAMES = 128


class FeatureSettings(BaseModel):
    """All that decides the bytes of a folder of features besides the videos."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    form: Form
    storage: Storage
    fps: float  # of the memory form; the released form spreads its frames over the video
    encoder_digest: str
    feature_width: int
    grid: int

    @property
    def suffix(self) -> str:
        """End of the files' names."""
        if self.form == "released":
            return ".pt"
        return ".safetensors" if self.storage == "bfloat16" else ".int8.safetensors"

    @property
    def encoder(self) -> EncoderIdentity:
        """The vision encoder of the features."""
        return EncoderIdentity(self.encoder_digest, self.feature_width, self.grid)


def check_folder(out: Path, settings: FeatureSettings) -> None:
    """Make a folder for features, or check that its features have the same settings.

    Raises:
        DataError: the folder cannot be written, or has features of another checkpoint, frame rate or form.
    """
    path = out / SETTINGS_NAME
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size:
            before = FeatureSettings.model_validate_json(path.read_text(encoding="utf-8"))
        else:
            with replacing(path) as temporary:
                temporary.write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")
            before = settings
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror}); choose a folder you may write to") from error
    except ValueError as error:
        raise DataError(f"{path} is not what was written there; remove it if the folder holds no features") from error
    for name, ours in settings.model_dump().items():
        theirs = getattr(before, name)
        if theirs != ours:
            what = "another checkpoint's vision tower" if name == "encoder_digest" else f"{name} {theirs}, not {ours}"
            raise DataError(f"{out} holds features of {what}; choose another folder with --out, or the same settings")


def is_made(path: Path, settings: FeatureSettings, digest: str) -> bool:
    """Whether a whole file with these settings for this video exists; any other file must be made again.

    A released file names no video: only its shape is checked, and a changed video goes unnoticed.
    """
    try:
        if path.stat().st_size == 0:
            return False
        if settings.form == "released":
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            features = content["vid_feat"]
            return len(features) >= 1 and tuple(features.shape[1:]) == settings.encoder.frame_shape
        fields = read_fields(path)[1]
        return (
            fields["source"]["digest"] == digest
            and fields["fps"] == settings.fps
            and fields["encoder"] == asdict(settings.encoder)
        )
    except (OSError, MemoryFileError, RuntimeError, ValueError, LookupError, TypeError, EOFError, AttributeError):
        return False  # nothing there, or something else's
    except (pickle.UnpicklingError, zipfile.BadZipFile):
        return False


def write_features(path: Path, memory: Memory, settings: FeatureSettings) -> float | None:
    """Write the features of a video, whole or not at all.

    Returns:
        int8 storage: the root mean square of the error over that of the features; otherwise None.

    Raises:
        MemoryFileError: the disk is full, or the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if settings.form == "released":
            content = {"vid_feat": memory.features, "duration": memory.duration_seconds}
            # With a path, torch would put the temporary name into the archive.
            with replacing(path) as temporary, temporary.open("wb") as file:
                torch.save(content, file)
            return None
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into the latter
        reason = str(error).splitlines()[0]
        raise MemoryFileError(f"{path} cannot be written ({reason}); free space there or choose a folder") from error
    if settings.storage == "bfloat16":
        memory.save(path)
        return None
    features_TPC, scales_TP, error_share = quantize(memory.features)
    tensors = {
        "features": features_TPC,
        "scales": scales_TP,
        "timestamps_seconds": torch.tensor(memory.timestamps_seconds),
        "sample_seconds": torch.tensor(memory.sample_seconds),
    }
    fields = {
        "fps": memory.fps,
        "duration_seconds": memory.duration_seconds,
        "source": asdict(memory.source) | {"name": memory.source.file_name},
        "encoder": None if memory.encoder is None else asdict(memory.encoder),
        "gaps": memory.gaps,
        "player_offset_seconds": memory.player_offset_seconds,
    }
    write_memory_file(path, tensors, fields)
    return error_share


def load_features(path: Path) -> Memory:
    """Read a feature file of any form as a memory; int8 features become bfloat16.

    Raises:
        MemoryFileError: there is no such file, or it is cut short, damaged, or none of the forms.
    """
    if path.suffix == ".pt":
        return Memory.load_released(path)
    if not path.name.endswith(".int8.safetensors"):
        try:
            return Memory.load(path)
        except OverflowError as error:  # a number that is no float
            raise damaged(path, error) from error
    tensors, fields = read_memory_file(path)
    _check_shapes(path, tensors)
    try:
        fields["source"] = WatchedSource(**fields["source"])
        fields["encoder"] = EncoderIdentity(**fields["encoder"])
        times = (tensors[name].numpy() for name in ("timestamps_seconds", "sample_seconds"))
        return Memory(tensors["features"].bfloat16() * tensors["scales"].bfloat16()[..., None], *times, **fields)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, InputError) as error:
        raise damaged(path, error) from error


def feature_size(path: Path) -> tuple[tuple[int, int, int], float]:
    """Shape [T, grid * grid, C] and seconds of what `load_features` reads, from the file's header alone.

    Raises:
        MemoryFileError: as `load_features`.
    """
    if path.suffix == ".pt":
        features, duration_seconds = open_released_features(path)
        num_frames = num_released_frames(len(features), duration_seconds)
    else:
        tensors, fields = read_memory_file(path)
        _check_shapes(path, tensors)
        features, num_frames = tensors["features"], len(tensors["features"])
        try:
            duration_seconds = float(fields["duration_seconds"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise damaged(path, error) from error
        if not (math.isfinite(duration_seconds) and duration_seconds >= 0):
            raise damaged(path, f"a video of {duration_seconds} seconds")
    return (num_frames, *features.shape[1:]), duration_seconds


def _check_shapes(path: Path, tensors: dict[str, Tensor]) -> None:
    """Check that a feature file holds features [frames, tokens, width], their times and, for int8, their scales.

    Raises:
        MemoryFileError: it does not.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    shape = shapes.get("features", ())
    if len(shape) != 3 or 0 in shape[1:]:
        raise damaged(path, f"its features are {list(shape)}, not [frames, tokens, width]")
    wanted: dict[str, tuple[int, ...]] = {"timestamps_seconds": shape[:1], "sample_seconds": shape[:1]}
    if path.name.endswith(".int8.safetensors"):
        wanted["scales"] = shape[:2]
    for name, right in wanted.items():
        if shapes.get(name) != right:
            raise damaged(path, f"its {name} are {list(shapes.get(name, ()))}, not {list(right)}")
    if tensors["features"].is_floating_point() == ("scales" in wanted):
        raise damaged(path, f"its features are {tensors['features'].dtype}")


def quantize(features_TPC: Tensor) -> tuple[Tensor, Tensor, float]:
    """Features as int8 with one scale for each token of each frame, and the error of that.

    Returns:
        int8 [T, P, C]; float32 scales [T, P]; root mean square of the error over that of the features, both restored
        in bfloat16.
    """
    whole = torch.empty_like(features_TPC, dtype=torch.int8)
    scales = torch.empty(features_TPC.shape[:2])
    error = total = 0.0
    for start in range(0, len(features_TPC), 256):  # frames at a time: an hour in float32 takes 1 GB
        part = slice(start, start + 256)
        exact = features_TPC[part].float()
        # Rounded to bfloat16 before the division, because the multiplication will use bfloat16.
        scale = (exact.abs().amax(-1) / 127).clamp_min(1e-12).bfloat16()
        scales[part] = scale.float()
        whole[part] = (exact / scales[part][..., None]).round().clamp(-127, 127).to(torch.int8)
        restored = whole[part].bfloat16() * scale[..., None]
        error += float((restored.float() - exact).double().square().sum())
        total += float(exact.double().square().sum())
    return whole, scales, (error / max(total, 1e-30)) ** 0.5
