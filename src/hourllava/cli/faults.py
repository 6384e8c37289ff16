"""Errors that no layer below has translated: faults of the machine, and bugs.

A machine may run out of memory, disk space or open files, or have no folder for temporary files. Such a fault gets one
line, as every error of ours does. Any other error is a bug: its traceback stays, with a note that asks for a report.
"""

import errno
import re
import unicodedata
from collections.abc import Iterator

BUG_NOTE = "This is a bug of hourllava. Please report it, with the lines above and your command."

_NO_MEMORY = re.compile(
    r"allocate memory|out of memory|bad_alloc|failed to map segment|not enough memory|can't start new thread",
    re.IGNORECASE,
)
_NO_FOLDER = "No usable temporary directory"  # of the standard library's tempfile
_ADVICE = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "use a folder you may write to",
    errno.EACCES: "use a file or folder that you may read and write",
    errno.EPERM: "use a file or folder that you may read and write",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.EIO: "check the disk, or the connection to it",
    errno.ESTALE: "check the connection to the disk",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "a link there leads back to itself",
}
"""What to do about a fault of the machine, by error number; any other OSError is a bug."""


def one_line(text: str) -> str:
    """Write a message as one line of printable text; other characters become escapes such as `\\n`."""
    return "".join(
        letter if letter.isprintable() or unicodedata.category(letter) == "Zs" else repr(letter)[1:-1]
        for letter in text
    )


def describe_fault(error: BaseException) -> str | None:
    """Say what the machine lacks and what to do about it; None if the error is a bug."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError) or _NO_MEMORY.search(str(cause)) or _errno(cause) == errno.ENOMEM:
            detail = f" ({' '.join(str(cause).split())[:200]})" if str(cause) else ""
            return (
                f"there is not enough memory{detail}; free some or raise the limit (ulimit -v), watch a part with "
                "--from and --to, or take a smaller model"
            )
    if isinstance(error, OSError):
        if _NO_FOLDER in str(error):
            return f"{error.strerror or error}; set TMPDIR to a folder you may write to"
        if error.errno in _ADVICE:
            what = error.filename or "the output or a temporary file"
            return f"{what} cannot be used: {error.strerror}; {_ADVICE[error.errno]}"
    return None


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes: an importer, for example, hides the cause behind an error of its own."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
