"""Why FFmpeg refused a file."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from hourllava.video.layout import is_encrypted
from hourllava.video.picture import check_size
from hourllava.video.source import Source, SourceKind


def why_no_picture(source: Source) -> str:
    """Why no picture could be decoded, and what to do.

    Raises:
        VideoError: the picture is too large.
    """
    if source.kind is SourceKind.FILE:
        path = Path(source.location)
        if is_encrypted(path):
            return "it is encrypted; give a file without protection"
        if (size := _picture_size(path)) is not None:
            check_size(*size, source.location)
    return "it is damaged, get it again"


def _picture_size(path: Path) -> tuple[int, int] | None:
    """Size of a still picture according to its header; FFmpeg gives none for a picture that it refuses."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError):
        return None
    except Image.DecompressionBombError:
        return 1 << 16, 1 << 16


def lacks_mp4_index(path: Path) -> bool:
    """Whether a file begins as mp4 or mov but has no moov box at top level."""
    boxes: set[bytes] = set()
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            num_bytes = int.from_bytes(header[:4])
            boxes.add(header[4:8])
            if not boxes & {b"ftyp", b"mdat", b"wide", b"free", b"skip"}:
                return False
            if num_bytes == 1:
                num_bytes = int.from_bytes(header[8:16])
            if num_bytes < 8:  # 0: to the end of the file; 1 to 7: damaged
                break
            file.seek(num_bytes - len(header), 1)
    return bool(boxes & {b"ftyp", b"mdat"}) and b"moov" not in boxes
