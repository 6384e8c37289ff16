"""References: small JSON files that stand for videos, whose frames are rendered when they are read.

`NAME.world.json` holds the arguments of `generate_script` and the size of the frames: 200 bytes instead of megabytes.
Training and `HourLlava.watch` read it like a video (`hourllava.world.rendered`). An hour of 64-pixel frames takes
0.15 s of one core; the script takes 5 ms of it, so it is not stored.

    write_reference(reference, Path("train-0-00000.world.json"))
    script = load_reference(Path("train-0-00000.world.json")).script()
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hourllava.errors import VideoError
from hourllava.files import replacing
from hourllava.world.generate import Density, generate_script
from hourllava.world.script import GENERATOR, SCRIPT_VERSION, Script
from hourllava.world.vocabulary import Split

REFERENCE_SUFFIX = ".world.json"


class Reference(BaseModel):
    """All that determines a video: the arguments of `generate_script`, and the size of the frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = SCRIPT_VERSION
    generator: str = GENERATOR  # the version of scripts and drawings
    seed: int
    duration_seconds: int
    split: Split
    density: Density
    needles: int | None
    size_pixels: int
    painted: bool = False
    needle_starts_seconds: tuple[int, ...] = ()  # where cards must start; the other cards lie at random places

    def script(self) -> Script:
        """Generate the script."""
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
    with replacing(path, durable=False) as temporary:  # thousands a minute, so no fsync; an empty file is made again
        temporary.write_text(reference.model_dump_json() + "\n", encoding="utf-8")


def load_reference(path: Path) -> Reference:
    """Read a reference without generating its script; enough to know the video's length.

    Raises:
        VideoError: the file cannot be read, is no reference, or was made by another version of the generator.
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
    made_by = reference.generator if "generator" in reference.model_fields_set else "unnamed"
    if made_by != GENERATOR:
        raise VideoError(
            f"{path} was made by another generator of MarathonWorld ({made_by:.40}, this one is {GENERATOR}), so its "
            "frames would differ; make it again with hourllava world make --container reference, or use the version "
            "of hourllava that made it"
        )
    return reference
