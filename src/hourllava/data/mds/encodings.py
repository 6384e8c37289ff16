"""Encodes values of MDS columns as bytes and back, little-endian throughout (format of mosaicml/streaming).

    str, bytes, json           UTF-8, as it is, `json.dumps` with ASCII escapes
    int, int8 ... float64      a Python int or float; `int` is int64
    ndarray[:dtype[:3,4]]      [dtype code, unless given][ndim * 4 + width code, dimensions, unless given][values]
    jpeg                       a JPEG file; written from its bytes or from a PIL image
    list[jpeg]                 uint32 0, uint32 count, uint32 sizes[count], the files

`pkl` is refused, because reading it can run code.
"""

import io
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image

from hourllava.errors import DataError

JPEG_QUALITY = 95  # of images that were not JPEG; PIL's default of 75 visibly damages text and charts
_JPEG_START = b"\xff\xd8\xff"
_DTYPE_CODES = {
    "uint8": 8, "int8": 9, "uint16": 16, "int16": 17, "float16": 18, "uint32": 32, "int32": 33, "float32": 34,
    "uint64": 64, "int64": 65, "float64": 66,
}  # fmt: skip
_DTYPES = {code: name for name, code in _DTYPE_CODES.items()}
_DIMENSION_DTYPES = ("u1", "<u2", "<u4", "<u8")  # by the two low bits of the byte before an array's dimensions
_MAX_DIMENSIONS = 32
_SCALARS = {
    "int": "q", "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "float16": "e", "uint32": "I", "int32": "i",
    "float32": "f", "uint64": "Q", "int64": "q", "float64": "d",
}  # fmt: skip

ALLOWED = f"str, json, bytes, jpeg, list[jpeg], ndarray[:dtype[:shape]], {', '.join(_SCALARS)}"
# The functions below raise these for damaged bytes and for values of a wrong type.
CODING_ERRORS = (
    ValueError, TypeError, OSError, SyntaxError, LookupError, ArithmeticError, AttributeError, struct.error,
    RecursionError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


Buffer = bytes | memoryview


@dataclass(frozen=True)
class Coder:
    """Encodes and decodes the values of one column; `size_bytes` is None if values differ in size.

    For images, `decode_files` gives the bytes of their files.
    """

    size_bytes: int | None
    encode: Callable[[Any], bytes]
    decode: Callable[[Buffer], Any]
    decode_files: Callable[[Buffer], Any] | None = None

    @property
    def unpack(self) -> Callable[[Buffer], Any]:
        """As `decode`, but gives images as the bytes of their files."""
        return self.decode_files or self.decode


@lru_cache(maxsize=256)
def find_coder(encoding: str) -> Coder:
    """The coder of an encoding, by its name in an index. Its functions raise `CODING_ERRORS`.

    Raises:
        DataError: the encoding is unknown or refused.
    """
    if encoding in _CODERS:
        return _CODERS[encoding]
    if encoding in _SCALARS:
        return _scalar("<" + _SCALARS[encoding])
    if encoding.split(":")[0] == "ndarray":
        return _array(encoding)
    if encoding == "pkl":
        raise DataError(f"encoding 'pkl' is refused, reading it can run code; allowed: {ALLOWED}; write it as json")
    raise DataError(f"encoding {encoding!r} is unknown; allowed: {ALLOWED}")


def _encode_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is not bytes")
    return value


def _encode_str(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is not str")
    return value.encode()


def _decode_str(data: Buffer) -> str:
    return str(data, "utf-8")


def _scalar(form: str) -> Coder:
    packer = struct.Struct(form)
    return Coder(packer.size, packer.pack, lambda data: packer.unpack(data)[0])


def encode_jpeg(value: bytes | Image.Image) -> bytes:
    """A JPEG file: bytes of one unchanged, or an image encoded with `JPEG_QUALITY`."""
    if isinstance(value, bytes):
        if not value.startswith(_JPEG_START):
            raise ValueError("the bytes are no JPEG file")
        return value
    if not isinstance(value, Image.Image):
        raise TypeError(f"{type(value).__name__} is neither a PIL image nor the bytes of a JPEG file")
    file = io.BytesIO()
    value.save(file, format="JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def decode_jpeg(data: Buffer) -> Image.Image:
    """The image with its pixels loaded, so that a damaged file fails here and not during training."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise ValueError(f"{image.width} x {image.height} pixels; at most {Image.MAX_IMAGE_PIXELS} are decoded")
    image.load()
    return image


def _encode_jpegs(value: Any) -> bytes:
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} is not a list")
    files = [encode_jpeg(item) for item in value]
    return struct.pack(f"<{2 + len(files)}I", 0, len(files), *map(len, files)) + b"".join(files)


def split_jpegs(data: Buffer) -> list[Buffer]:
    """The JPEG files in a value of a `list[jpeg]` column."""
    _, count = struct.unpack_from("<2I", data)
    if 8 + 4 * count > len(data):
        raise ValueError(f"{len(data)} bytes cannot hold {count} images")
    files, begin = [], 8 + 4 * count
    for size in struct.unpack_from(f"<{count}I", data, 8):
        files.append(data[begin : begin + size])
        begin += size
    if begin != len(data):
        raise ValueError(f"the images' sizes add up to {begin} bytes of {len(data)}")
    return files


def _array(encoding: str) -> Coder:
    _, *settings = encoding.split(":")
    name = settings[0] if settings else None
    dimensions = settings[1].split(",") if len(settings) > 1 else None
    if (
        len(settings) > 2
        or (name is not None and name not in _DTYPE_CODES)
        or (dimensions is not None and not all(d.isascii() and d.isdigit() and 0 < int(d) < 2**32 for d in dimensions))
    ):
        raise DataError(f"encoding {encoding!r} is unknown; allowed: ndarray, ndarray:float16, ndarray:float16:64,1152")
    shape = tuple(map(int, dimensions)) if dimensions else None
    size = math.prod(shape) * np.dtype(name).itemsize if name and shape else None
    return Coder(size, partial(_encode_array, name, shape), partial(_decode_array, name, shape))


def _encode_array(name: str | None, shape: tuple[int, ...] | None, value: Any) -> bytes:
    if not isinstance(value, np.ndarray) or value.dtype.name not in _DTYPE_CODES:
        raise TypeError(f"{getattr(value, 'dtype', type(value).__name__)} is no array of {', '.join(_DTYPE_CODES)}")
    if value.size == 0 or not 1 <= value.ndim <= _MAX_DIMENSIONS:
        raise ValueError(f"an array of shape {value.shape}; 1 to {_MAX_DIMENSIONS} dimensions of 1 or more are allowed")
    if (name or value.dtype.name) != value.dtype.name or (shape or value.shape) != value.shape:
        raise ValueError(f"got {value.dtype.name} {value.shape}, the column holds {name} {shape or 'of any shape'}")
    head = b"" if name else bytes([_DTYPE_CODES[value.dtype.name]])
    if shape is None:
        code = next(k for k in range(4) if max(value.shape) < 1 << (8 << k))
        head += bytes([value.ndim << 2 | code]) + np.array(value.shape, _DIMENSION_DTYPES[code]).tobytes()
    return head + value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()


def _decode_array(name: str | None, shape: tuple[int, ...] | None, data: Buffer) -> np.ndarray:
    begin = 0
    if name is None:
        name, begin = _DTYPES[data[0]], 1
    if shape is None:
        num_dimensions, code = data[begin] >> 2, data[begin] & 3
        dimensions = np.frombuffer(data, _DIMENSION_DTYPES[code], num_dimensions, begin + 1)
        shape, begin = tuple(map(int, dimensions)), begin + 1 + dimensions.nbytes
    values = np.frombuffer(data, np.dtype(name).newbyteorder("<"), offset=begin)
    return values.reshape(shape).astype(name)  # a writable copy


_CODERS = {
    "bytes": Coder(None, _encode_bytes, bytes),
    "str": Coder(None, _encode_str, _decode_str),
    "json": Coder(None, lambda value: json.dumps(value).encode(), lambda data: json.loads(_decode_str(data))),
    "jpeg": Coder(None, encode_jpeg, decode_jpeg, bytes),
    "list[jpeg]": Coder(
        None,
        _encode_jpegs,
        lambda data: [decode_jpeg(file) for file in split_jpegs(data)],
        lambda data: [bytes(file) for file in split_jpegs(data)],
    ),
}
