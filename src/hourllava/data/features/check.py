"""Checks that the model's own vision tower made the features.

Many towers have the same shape: those of the published stages do, and training changes a tower. A memory file names its
encoder. A released file does not; `features.json` in its folder names the encoder of all files there.
"""

from pathlib import Path

from hourllava.data.features.files import SETTINGS_NAME, FeatureSettings
from hourllava.errors import DataError, MemoryFileError
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory_file import damaged, read_fields


def stored_encoder(path: Path, media_root: Path) -> EncoderIdentity | None:
    """The encoder of a feature file, as the file or a folder around it names it; None if none of them does.

    Args:
        path: of the file.
        media_root: the outermost folder that may name it.

    Raises:
        MemoryFileError: the file's description is damaged.
    """
    if path.suffix != ".pt":
        told = read_fields(path)[1].get("encoder")
        try:
            if told is not None:
                return EncoderIdentity(**told)
        except TypeError as error:
            raise damaged(path, error) from error
    for folder in path.absolute().parents:
        if (folder / SETTINGS_NAME).is_file():
            try:
                text = (folder / SETTINGS_NAME).read_text(encoding="utf-8")
                return FeatureSettings.model_validate_json(text).encoder
            except (OSError, ValueError):  # something else's file of that name
                return None
        if folder == media_root.absolute():
            break
    return None


def check_encoder(name: str, path: Path, media_root: Path, encoder: EncoderIdentity) -> None:
    """Refuse features of another vision encoder; features of an unknown encoder pass.

    Raises:
        DataError: another encoder made them, or the file cannot be read.
    """
    try:
        found = stored_encoder(path, media_root)
    except MemoryFileError as error:
        raise DataError(str(error)) from error
    refuse_other(name, found, encoder)


def refuse_other(name: str, found: EncoderIdentity | None, encoder: EncoderIdentity) -> None:
    """As `check_encoder`, for a result of `stored_encoder`."""
    if found is not None and found != encoder:
        raise DataError(
            f"{name} holds features of another vision encoder ({_describe(found)}; the model that training starts from "
            f"has {_describe(encoder)}); extract them again with that model, or set data.any_encoder=true if they are "
            "known to be alike"
        )


def _describe(encoder: EncoderIdentity) -> str:
    return f"{encoder.digest[:12]}, {encoder.grid} x {encoder.grid} tokens of width {encoder.feature_width}"
