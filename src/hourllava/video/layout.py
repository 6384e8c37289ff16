"""What the structure of a file says and PyAV does not: missing bytes, crops, encryption, tiles.

The functions read headers only, a bounded number of bytes, and take structures that they cannot follow for absent.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

# Boxes of ISO base media that hold boxes, and the number of bytes before the first of these. ISO/IEC 14496-12.
BOX_PARENTS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8, b"meta": 4}
VISUAL_ENTRY_BYTES = 78  # before the boxes of a sample entry for pictures
EBML, SEGMENT, TRACKS, TRACK, VIDEO = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0xAE, 0xE0  # RFC 9559
TRACK_TYPE, ENCODINGS, ENCODING, ENCRYPTION = 0x83, 0x6D80, 0x6240, 0x5035
CROPS = {0x54CC: 0, 0x54DD: 1, 0x54BB: 2, 0x54AA: 3}  # PixelCropLeft, Right, Top, Bottom
MAX_ELEMENTS = 1_000_000  # read of one file
TS_BYTES = 188


@dataclass(frozen=True)
class Crop:
    """Pixels that the container cuts off the sides of the coded picture."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0


NO_CROP = Crop()


def cropping(path: Path) -> Crop:
    """The crop of the first video track of a Matroska, mp4 or mov file."""
    with path.open("rb") as file:
        if _is_ebml(file):
            for track in _video_tracks(file):
                sides = [0, 0, 0, 0]
                for name, start, end in itertools.chain.from_iterable(
                    _elements(file, s, e) for n, s, e in track if n == VIDEO
                ):
                    if name in CROPS:
                        sides[CROPS[name]] = _number(file, start, end)
                return Crop(*sides)
            return NO_CROP
        for kind, start, end in _sample_entries(file):
            width, height = (int.from_bytes(_read(file, start + at, 2)) for at in (24, 26))
            for box, body, body_end in _boxes(file, start + VISUAL_ENTRY_BYTES, end):
                if box == b"clap" and body_end - body >= 32:
                    return _aperture(_read(file, body, 32), width, height)
            if kind != b"jpeg":  # a chapter's picture track
                break
    return NO_CROP


def _aperture(data: bytes, width: int, height: int) -> Crop:
    numbers = [int.from_bytes(data[at : at + 4], signed=True) for at in range(0, 32, 4)]
    if any(below <= 0 for below in numbers[1::2]):
        return NO_CROP
    wide, high, right, down = (Fraction(above, below) for above, below in zip(numbers[::2], numbers[1::2]))
    left, top = round((width - wide) / 2 + right), round((height - high) / 2 + down)
    sides = (left, width - left - round(wide), top, height - top - round(high))
    return Crop(*sides) if min(sides) >= 0 and wide > 0 and high > 0 else NO_CROP


def is_encrypted(path: Path) -> bool:
    """Whether a video track of an mp4, Matroska or MPEG-TS file is encrypted."""
    with path.open("rb") as file:
        if _is_ebml(file):
            for track in _video_tracks(file):
                encodings = [e for n, s, t in track if n == ENCODINGS for e in _elements(file, s, t)]
                inner = [n for name, s, t in encodings if name == ENCODING for n, _, _ in _elements(file, s, t)]
                if ENCRYPTION in inner:
                    return True
            return False
        start = _read(file, 0, 16 * TS_BYTES)
        if len(start) >= 4 * TS_BYTES and all(byte == 0x47 for byte in start[::TS_BYTES]):
            return _is_scrambled(file)
        return any(name == b"encv" for name, _, _ in _sample_entries(file))


def _is_scrambled(file: BinaryIO) -> bool:
    data = _read(file, 0, 20_000 * TS_BYTES)
    bodies = [data[at + 3] for at in range(0, len(data) - 3, TS_BYTES) if data[at] == 0x47 and data[at + 3] & 0x10]
    return sum(byte >> 7 for byte in bodies) * 10 > len(bodies)  # tables are never encrypted


def is_cut_short(path: Path) -> bool:
    """Whether a file has fewer bytes than its structure says: Matroska, WebM, RIFF (AVI, WebP), mp4, GIF and PNG.

    False for files that do not state their length: recordings that still grow, MPEG streams, Ogg, FLV.
    """
    with path.open("rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        head = _read(file, 0, 12)
        if _is_ebml(file):
            return any(name == SEGMENT and end > num_bytes for name, _, end in _elements(file, 0, None))
        if head[:4] == b"RIFF":
            return _lacks_riff_bytes(file, num_bytes)
        if head[:3] == b"GIF":
            return not _has_gif_trailer(file, num_bytes)
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            return not _has_png_end(file, num_bytes)
        if head[4:8] == b"ftyp":
            return any(end > num_bytes for _, _, end in _boxes(file, 0, None))
    return False


def _lacks_riff_bytes(file: BinaryIO, num_bytes: int) -> bool:
    at = 0
    while len(head := _read(file, at, 8)) == 8 and head[:4] == b"RIFF":
        size = int.from_bytes(head[4:], "little")
        if size in (0, 0xFFFFFFFF):  # not known yet, or too large for the field
            return False
        at += 8 + size
        if at > num_bytes:
            return True
        at += size % 2
    return False


def _has_gif_trailer(file: BinaryIO, num_bytes: int) -> bool:
    flags = _read(file, 10, 1)
    at = 13 + _color_table_bytes(flags)
    while kind := _read(file, at, 1):
        if kind == b";":
            return True
        if kind == b"!":
            at += 2
        elif kind == b",":
            at += 11 + _color_table_bytes(_read(file, at + 9, 1))
        else:
            return True  # damage of another kind: decoding will report it
        while (size := _read(file, at, 1)) not in (b"", b"\0"):
            at += 1 + size[0]
        at += 1
    return False


def _color_table_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _has_png_end(file: BinaryIO, num_bytes: int) -> bool:
    at = 8
    while at + 12 <= num_bytes:
        head = _read(file, at, 8)
        at += 12 + int.from_bytes(head[:4])
        if head[4:] == b"IEND":
            return at <= num_bytes
    return False


def tiled_picture_kind(path: Path) -> str | None:
    """ "avif" or "heic" if the file's main picture is made of tiles (a grid or an overlay), else None."""
    with path.open("rb") as file:
        head = _read(file, 0, 4096)
        if head[4:8] != b"ftyp":
            return None
        brands = head[8 : int.from_bytes(head[:4])]
        primary, kinds = 0, {}
        for name, start, end in (box for parent in _find(file, (b"meta",)) for box in _boxes(file, *parent)):
            version = int.from_bytes(_read(file, start, 1))
            if name == b"pitm":
                primary = int.from_bytes(_read(file, start + 4, 4 if version else 2))
            elif name == b"iinf":
                for item, body, _ in _boxes(file, start + (8 if version else 6), end):
                    if item == b"infe":
                        id_bytes = 4 if int.from_bytes(_read(file, body, 1)) >= 3 else 2
                        number = int.from_bytes(_read(file, body + 4, id_bytes))
                        kinds[number] = _read(file, body + 4 + id_bytes + 2, 4)
        if kinds.get(primary) not in (b"grid", b"iovl"):
            return None
        return "avif" if b"avif" in brands else "heic"


def webp_durations_ms(path: Path) -> list[int]:
    """How long each picture of an animated WebP is shown; empty for other files. RFC 9649."""
    durations: list[int] = []
    with path.open("rb") as file:
        head = _read(file, 0, 12)
        if head[:4] != b"RIFF" or head[8:] != b"WEBP":
            return []
        at = 12
        while len(head := _read(file, at, 8)) == 8 and len(durations) < MAX_ELEMENTS:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"ANMF":
                durations.append(int.from_bytes(_read(file, at + 8 + 12, 3), "little"))
            at += 8 + size + size % 2
    return durations


def _sample_entries(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Sample entries (kind, body, end) of the picture tracks of an mp4."""
    for start, end in _find(file, (b"moov", b"trak", b"mdia", b"minf")):
        boxes = list(_boxes(file, start, end))
        if any(name == b"vmhd" for name, _, _ in boxes):
            for name, body, body_end in boxes:
                for table in _find(file, (b"stsd",), body, body_end) if name == b"stbl" else ():
                    yield from _boxes(file, *table)


def _find(
    file: BinaryIO, names: tuple[bytes, ...], start: int = 0, end: int | None = None
) -> Iterator[tuple[int, int]]:
    """Start and end of the contents of all boxes at a path of names."""
    for name, body, body_end in _boxes(file, start, end):
        if name == names[0]:
            inside = (body + BOX_PARENTS[name], body_end)
            if len(names) == 1:
                yield inside
            else:
                yield from _find(file, names[1:], *inside)


def _boxes(file: BinaryIO, start: int, end: int | None) -> Iterator[tuple[bytes, int, int]]:
    """Boxes (name, body, end) from `start` to `end` (None: the end of the file); a box may claim to end behind it."""
    for _ in range(MAX_ELEMENTS):
        if end is not None and start + 8 > end:
            return
        head = _read(file, start, 16)
        if len(head) < 8 or not head[4:8].isascii():
            return
        size, body = int.from_bytes(head[:4]), start + 8
        if size == 1:
            size, body = int.from_bytes(head[8:16]), start + 16
        if size == 0:  # to the end of the file
            size = os.fstat(file.fileno()).st_size - start
        if start + size < body:
            return
        yield head[4:8], body, start + size
        start += size


def _is_ebml(file: BinaryIO) -> bool:
    return int.from_bytes(_read(file, 0, 4)) == EBML


def _video_tracks(file: BinaryIO) -> Iterator[list[tuple[int, int, int]]]:
    """The elements of each video track of a Matroska file."""
    for name, start, end in _elements(file, 0, None):
        if name != SEGMENT:
            continue
        for inner, body, body_end in _elements(file, start, end):
            if inner != TRACKS:
                continue
            for _, track_start, track_end in (e for e in _elements(file, body, body_end) if e[0] == TRACK):
                track = list(_elements(file, track_start, track_end))
                if any(n == TRACK_TYPE and _number(file, s, e) == 1 for n, s, e in track):
                    yield track
            return


def _elements(file: BinaryIO, start: int, end: int | None) -> Iterator[tuple[int, int, int]]:
    """Matroska elements (id, body, end) from `start` to `end`; an element of unknown length ends with the file."""
    for _ in range(MAX_ELEMENTS):
        if end is not None and start >= end:
            return
        head = _read(file, start, 12)
        id_bytes = 9 - head[0].bit_length() if head and head[0] else 0
        if not 1 <= id_bytes <= 4 or len(head) <= id_bytes or not head[id_bytes]:
            return
        size_bytes = 9 - head[id_bytes].bit_length()
        body = start + id_bytes + size_bytes
        mask = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes]) & mask
        if size == mask:
            size = os.fstat(file.fileno()).st_size - body
        yield int.from_bytes(head[:id_bytes]), body, body + size
        start = body + size


def _number(file: BinaryIO, start: int, end: int) -> int:
    return int.from_bytes(_read(file, start, min(8, end - start)))


def _read(file: BinaryIO, start: int, num_bytes: int) -> bytes:
    if start >= 1 << 62:  # only in damaged files
        return b""
    file.seek(start)
    return file.read(num_bytes)
