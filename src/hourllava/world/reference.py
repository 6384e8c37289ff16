"""A video that is not there: a small JSON file from which its frames are rendered when they are read.

`NAME.world.json` holds what `generate_script` was called with and the size of the frames, 200 bytes instead of
megabytes. Training and `HourLlava.watch` read it where a video would be read: an hour of 64-pixel frames takes 0.15 s
of one core, of which the script is 5 ms, so the script itself is not stored.

    frames = render_reference(Path("train-0-00000.world.json"), range(60))  # uint8 [60, 64, 64, 3]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hourllava.errors import VideoError
from hourllava.files import replacing
from hourllava.world.drawing.render import Frame, render_frames
from hourllava.world.generate import Density, generate_script
from hourllava.world.script import GENERATOR, SCRIPT_VERSION, Script
from hourllava.world.vocabulary import Split

REFERENCE_SUFFIX = ".world.json"


class Reference(BaseModel):
    """What a video follows from; the arguments of `generate_script`, and the size of its frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = SCRIPT_VERSION
    generator: str = GENERATOR  # what made and draws it
    seed: int
    duration_seconds: int
    split: Split
    density: Density
    needles: int | None
    size_pixels: int
    painted: bool = False
    needle_starts_seconds: tuple[int, ...] = ()  # where cards must be; the others lie where chance puts them

    def script(self) -> Script:
        """The script, generated."""
        return generate_script(
            self.seed,
            self.duration_seconds,
            split=self.split,
            density=self.density,
            needles=self.needles,
            needle_starts_seconds=self.needle_starts_seconds,
            painted=self.painted,
        )


def write_reference(reference: Reference, path: Path) -> None:
    """Write the file that stands for a video."""
    with replacing(path, durable=False) as temporary:  # thousands a minute; an empty one is made again
        temporary.write_text(reference.model_dump_json() + "\n", encoding="utf-8")


def load_reference(path: Path) -> Reference:
    """Read a reference without generating anything; enough for the video's length.

    Raises:
        VideoError: the file cannot be read, is no reference, or is one of another generator.
    """
    try:
        reference = Reference.model_validate_json(path.read_bytes())
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise VideoError(
            f"{path} is no reference to a MarathonWorld video: {where}: {first['msg']}; make it again with "
            "hourllava world make --container reference"
        ) from error
    made_by = reference.generator if "generator" in reference.model_fields_set else "one that did not say"
    if made_by != GENERATOR:
        raise VideoError(
            f"{path} was made by another generator of MarathonWorld ({made_by:.40}, this one is {GENERATOR}): its "
            "frames would be of another video; make it again with hourllava world make --container "
            "reference, or use the version of hourllava that made it"
        )
    return reference


def read_reference(path: Path) -> Script:
    """The script a reference stands for.

    Raises:
        VideoError: the file cannot be read or is no reference.
    """
    return load_reference(path).script()


def render_reference(path: Path, sample_seconds: Sequence[float]) -> Frame:
    """Frames of the video at these times: uint8 RGB [T, S, S, 3], equal to those `render_frames` gives.

    Raises:
        VideoError: the file cannot be read or is no reference.
        ConfigError: a time outside the video.
    """
    reference = load_reference(path)
    return render_frames(reference.script(), sample_seconds, reference.size_pixels)
