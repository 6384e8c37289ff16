"""Recognises MarathonWorld's frames: which script they show, and which second of it.

Frames are compared as thumbnails with all seconds of all candidates. Many seconds look alike, because objects rest most
of the time; among those that fit equally well, the one at the told time is taken.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hourllava.synthesis.models.request import Picture
from hourllava.world.drawing.render import Renderer
from hourllava.world.script import Script

SIDE_PIXELS = 16
RENDERED_PIXELS = 64
FITS = 12.0  # of 255: mean difference up to which a frame is one of a script
ALIKE = 0.35  # difference up to which two seconds fit equally well
_COARSE_SIDE = 4
_ROUNDING = 0.01
_CANDIDATES = 3  # frames of a clip by which its script is found


class Eye:
    """Recognises frames of some scripts.

    Args:
        scripts: the candidates. Their thumbnails are drawn when they are first needed.
    """

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.scripts = list(scripts)
        self._thumbnails: dict[int, NDArray[np.float32]] = {}
        self._small: dict[int, NDArray[np.float32]] = {}
        self._coarse: NDArray[np.float32] | None = None  # of all scripts
        self._starts: NDArray[np.int64] = np.zeros(0, np.int64)

    def see(self, pictures: Sequence[Picture]) -> tuple[Script, list[int]] | None:
        """The script that frames show, and the second of it for each frame; None if they show none of the scripts.

        Args:
            pictures: of one video.
        """
        frames = np.stack([_thumbnail(Image.open(io.BytesIO(picture.jpeg))) for picture in pictures])
        number = self._script(frames[:: max(1, len(frames) // _CANDIDATES)])
        if number is None:
            return None
        known, coarse = self._of_script(number), self._coarse_of(number)
        seconds, differences = [], []
        for frame, small, picture in zip(frames, _coarse(frames), pictures):
            # Means of blocks differ by no more than the blocks do, so most seconds need no closer look.
            least = np.abs(coarse - small).mean(1)
            most = float(np.abs(known[least.argmin()] - frame).mean()) + ALIKE
            near = np.flatnonzero(least <= most + _ROUNDING)
            found = np.abs(known[near] - frame).mean(1)
            fitting = near[found <= found.min() + ALIKE]
            seconds.append(int(fitting[np.abs(fitting - picture.seconds).argmin()]))
            differences.append(float(found.min()))
        return (self.scripts[number], seconds) if float(np.median(differences)) <= FITS else None

    def _script(self, frames: NDArray[np.float32]) -> int | None:
        """The script that some frames fit best, by smaller thumbnails: there may be many hours of candidates."""
        if len(self.scripts) < 2:
            return 0 if self.scripts else None
        if self._coarse is None:
            parts = [self._coarse_of(k) for k in range(len(self.scripts))]
            self._coarse = np.concatenate(parts)
            self._starts = np.cumsum([0, *(len(part) for part in parts)])[:-1]
        nearest = [np.minimum.reduceat(np.abs(self._coarse - frame).mean(1), self._starts) for frame in _coarse(frames)]
        return int(np.mean(nearest, axis=0).argmin())

    def _coarse_of(self, number: int) -> NDArray[np.float32]:
        if number not in self._small:
            self._small[number] = _coarse(self._of_script(number))
        return self._small[number]

    def _of_script(self, number: int) -> NDArray[np.float32]:
        if number not in self._thumbnails:
            renderer = Renderer(self.scripts[number], RENDERED_PIXELS)
            seconds = range(self.scripts[number].duration_seconds)
            self._thumbnails[number] = np.stack(
                [_thumbnail(Image.fromarray(renderer.frame(float(second)))) for second in seconds]
            )
        return self._thumbnails[number]


def _coarse(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [N, 48]: thumbnails of 4 x 4 pixels."""
    block = SIDE_PIXELS // _COARSE_SIDE
    parts = thumbnails.reshape(len(thumbnails), _COARSE_SIDE, block, _COARSE_SIDE, block, 3)
    return parts.mean((2, 4)).reshape(len(thumbnails), -1)


def _thumbnail(image: Image.Image) -> NDArray[np.float32]:
    small = image.convert("RGB").resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()
