"""The bytes of a subtitle file as text: encodings by rule, one for the whole file.

text = read_text(Path("lecture.srt"))
"""

import codecs
import logging
import re
import stat
from pathlib import Path

from hourllava.errors import ConfigError, DataError

MAX_SUBTITLE_BYTES = 16 * 2**20
"""Largest subtitle file that is read: a day of speech with word times takes about 5 MB."""

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)

# UTF-16 is told by its zeros: at least this part of one half of the bytes (digits and spaces of the times alone make
# up more), and four times as many as in the other half.
_MIN_ZEROS = 0.2

_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")

# Marks of windows-1252 that stand beside each other: quotes, dashes, dots, signs.
_PUNCTUATION = "€‚„…†‡‰‹‘’“”•–—›™\u00a0¡£§©«®°´·»¿".encode("cp1252")
# Five bytes that windows-1252 leaves open stay control characters, as the WHATWG has it.
_WINDOWS_1252 = {byte: text for byte in range(0x80, 0xA0) if (text := bytes([byte]).decode("cp1252", "ignore"))}
_HIGH_RUN = re.compile(rb"[\x80-\xff]{3,}")

_log = logging.getLogger(__name__)


def read_text(path: Path, encoding: str | None) -> str:
    """The text of a regular file of at most `MAX_SUBTITLE_BYTES`.

    Args:
        path: of the file.
        encoding: as Python names it; None: see `decode_text`.

    Raises:
        DataError: it is missing, unreadable, no regular file, too large, or of another encoding.
        ConfigError: there is no such encoding.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # a pipe would be waited for
            raise DataError(f"{path} is no regular file; save the subtitles to a file")
        if status.st_size > MAX_SUBTITLE_BYTES:
            raise DataError(
                f"{path} has {status.st_size / 2**20:.0f} MiB; subtitles may have {MAX_SUBTITLE_BYTES // 2**20} MiB: "
                "cut the file"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); give a .srt or .vtt file") from error
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{str(path)!r} cannot be read ({error}); give a .srt or .vtt file") from error
    if encoding is not None:
        return _decode_as(path, content, encoding)
    return decode_text(path, content)


def decode_text(path: Path, content: bytes) -> str:
    """Text of a file whose encoding nobody has named.

    A byte order mark decides. Without one: UTF-16 if every other byte is zero often enough; UTF-8 if it is valid, or if
    it has at least as many valid characters of several bytes as bad bytes; else windows-1252 (as the WHATWG decodes
    it), unless the bytes above 127 mostly stand together in threes and more, as no Western language writes. A byte that
    is bad in UTF-8 or UTF-16 costs one character, which becomes U+FFFD. All but valid text is told in the log.

    Args:
        path: for messages.
        content: of the file.

    Raises:
        DataError: it is of an encoding that cannot be told, or UTF-16 with a lost or added byte amid it.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _mostly(path, content[len(mark) :], encoding)
    if (utf_16 := _utf_16_by_zeros(content)) is not None:
        return _mostly(path, content, utf_16)
    if b"\x1b$" in content:  # ISO-2022 switches alphabets with an escape; its bytes are valid UTF-8
        raise _unknown(path)
    try:
        return content.decode()
    except UnicodeDecodeError:
        pass
    num_bad = content.decode(errors="replace").count("\ufffd") - content.count("\ufffd".encode())
    if sum(1 for _ in _MULTIBYTE.finditer(content)) >= num_bad:
        return _mostly(path, content, "utf-8")
    runs = [run[0] for run in _HIGH_RUN.finditer(content) if len(run[0].translate(None, _PUNCTUATION)) > 1]
    num_high = len(content) - len(content.translate(None, bytes(range(0x80, 0x100))))
    if 2 * sum(map(len, runs)) > num_high:
        raise _unknown(path)
    _log.warning("%s is no UTF-8 and is read as windows-1252; name its encoding if letters come out wrong", path)
    return content.decode("latin-1").translate(_WINDOWS_1252)


def _utf_16_by_zeros(content: bytes) -> str | None:
    even, odd = content[::2].count(0), content[1::2].count(0)
    if max(even, odd) < _MIN_ZEROS * len(content) / 2:
        return None
    return "utf-16-le" if odd > 4 * even else "utf-16-be" if even > 4 * odd else None


def _mostly(path: Path, content: bytes, encoding: str) -> str:
    """Text with U+FFFD for what is no character; a warning counts them."""
    text = content.decode(encoding, "replace")
    if encoding.startswith("utf-16") and "-->" in content[1:].decode(encoding, "replace"):
        raise DataError(f"{path} is damaged: a byte is missing amid its UTF-16 text; get the file again")
    num_bad = text.count("\ufffd") - content.decode(encoding, "ignore").count("\ufffd")
    if num_bad:
        _log.warning("%s: %d characters are damaged (no %s) and become U+FFFD", path, num_bad, encoding)
    return text


def _decode_as(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        raise DataError(f"{path} is not in {encoding} ({error}); name another encoding") from error
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"there is no text encoding {encoding!r}; use a name such as windows-1251, shift_jis or gbk"
        ) from error


def _unknown(path: Path) -> DataError:
    return DataError(
        f"{path} is neither UTF-8, UTF-16 nor Western text; name its encoding with encoding=, or --subtitles-encoding: "
        "windows-1251, shift_jis, gbk, ..."
    )
