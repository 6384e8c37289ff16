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
_CANDIDATES = 3  # frames of a clip by which its script is found


class Eye:
    """Recognises frames of some scripts.

    Args:
        scripts: the candidates. Their thumbnails are drawn when they are first needed.
    """

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.scripts = list(scripts)
        self._thumbnails: dict[int, NDArray[np.float32]] = {}

    def see(self, pictures: Sequence[Picture]) -> tuple[Script, list[int]] | None:
        """The script that frames show, and the second of it for each frame; None if they show none of the scripts.

        Args:
            pictures: of one video.
        """
        frames = np.stack([_thumbnail(Image.open(io.BytesIO(picture.jpeg))) for picture in pictures])
        few = frames[:: max(1, len(frames) // _CANDIDATES)]
        best = min(range(len(self.scripts)), key=lambda k: float(self._distances(k, few).min(1).mean()), default=None)
        if best is None:
            return None
        distances = self._distances(best, frames)  # [frames, seconds]
        if float(np.median(distances.min(1))) > FITS:
            return None
        seconds = []
        for row, picture in zip(distances, pictures):
            fitting = np.flatnonzero(row <= row.min() + ALIKE)
            seconds.append(int(fitting[np.abs(fitting - picture.seconds).argmin()]))
        return self.scripts[best], seconds

    def _distances(self, number: int, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """[frames, seconds] mean absolute difference of the thumbnails."""
        known = self._of_script(number)
        return np.stack([np.abs(known - frame).mean(1) for frame in frames])

    def _of_script(self, number: int) -> NDArray[np.float32]:
        if number not in self._thumbnails:
            renderer = Renderer(self.scripts[number], RENDERED_PIXELS)
            seconds = range(self.scripts[number].duration_seconds)
            self._thumbnails[number] = np.stack(
                [_thumbnail(Image.fromarray(renderer.frame(float(second)))) for second in seconds]
            )
        return self._thumbnails[number]


def _thumbnail(image: Image.Image) -> NDArray[np.float32]:
    small = image.convert("RGB").resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()
