"""The text of a subtitle file, in one encoding, which rules detect if nobody names it.

text = read_text(Path("lecture.srt"), None)
"""

import codecs
import logging
import re
import stat
from pathlib import Path

from hourllava.errors import ConfigError, DataError

MAX_SUBTITLE_BYTES = 16 * 2**20
"""Limit on the size of a subtitle file. A day of speech with a time for every word takes about 5 MB."""

# UTF-32 comes first, because its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)

# UTF-16 is recognised by zeros in every other byte: at least this share of them (digits and spaces of the times alone
# make up more), and four times as many as in the other bytes.
_MIN_ZEROS = 0.2

_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")

# Punctuation of windows-1252 that stands side by side: quotes, dashes, dots, signs.
_PUNCTUATION = "€‚„…†‡‰‹‘’“”•–—›™\u00a0¡£§©«®°´·»¿".encode("cp1252")
# As in the WHATWG's decoder, the five bytes without a character in windows-1252 stay control characters.
_WINDOWS_1252 = {byte: text for byte in range(0x80, 0xA0) if (text := bytes([byte]).decode("cp1252", "ignore"))}
_HIGH_RUN = re.compile(rb"[\x80-\xff]{3,}")

_log = logging.getLogger(__name__)


def read_text(path: Path, encoding: str | None) -> str:
    """Read a regular file of at most `MAX_SUBTITLE_BYTES` as text.

    Args:
        path: of the file.
        encoding: by Python's name; None detects it, see `decode_text`.

    Raises:
        DataError: it is missing, unreadable, no regular file, too large, or of another encoding.
        ConfigError: there is no such encoding.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # reading a pipe would block
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
    """Detect the encoding of a file and decode it.

    A byte order mark decides. Without one, the rules are, in this order:
    1. UTF-16, if enough of every other byte are zero.
    2. UTF-8, if it is valid, or has at least as many valid characters of several bytes as bad bytes.
    3. windows-1252 (as the WHATWG decodes it), unless most bytes above 127 stand in groups of three or more, which no
       Western language writes.

    A bad byte in UTF-8 or UTF-16 costs one character, which becomes U+FFFD. The log warns of bad bytes and of
    windows-1252.

    Args:
        path: for messages.
        content: of the file.

    Raises:
        DataError: the encoding cannot be detected, or a byte of UTF-16 text is missing or added.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _mostly(path, content[len(mark) :], encoding)
    if (utf_16 := _utf_16_by_zeros(content)) is not None:
        return _mostly(path, content, utf_16)
    if b"\x1b$" in content:  # ISO-2022 switches alphabets with this escape; its bytes are valid UTF-8
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
    """Text with U+FFFD for bad bytes; a warning counts them."""
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
