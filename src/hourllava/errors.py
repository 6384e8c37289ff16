"""The errors a caller can act on.

Every message says what was got, what is allowed and what to do next, on one line. The command prints the message and
exits with the `exit_code` of the class. Broken invariants of our own are `assert`s, never one of these.

A command for many items works through all of them first. If some failed, it ends with `PartlyDoneError`; if all failed,
with the class of the fault.
"""

import re

# Control characters with all line ends, also those of Unicode: file names may hold any.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """A text on one line: control characters are written as Python writes them, such as \\n."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


class HourLlavaError(Exception):
    """Base of all errors that this library raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        return one_line(super().__str__())

    def __reduce__(self) -> tuple[object, ...]:
        # As it is, and not by a call: a class may take other arguments than `args`.
        return _remade, (type(self), self.args), self.__dict__


def _remade(kind: type[HourLlavaError], args: tuple[object, ...]) -> HourLlavaError:
    return kind.__new__(kind, *args)


class ConfigError(HourLlavaError, ValueError):
    """A setting, option or argument that is not allowed."""

    exit_code = 2


class VideoError(HourLlavaError):
    """A video cannot be read, or holds no picture."""

    exit_code = 3


class VideoLimitError(VideoError):
    """A video is larger than somebody allows.

    Attributes:
        limit: what there is too much of: `seconds`, `frames`, `pixels` or `streams`.
    """

    exit_code = 13

    def __init__(self, message: str, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class CheckpointError(HourLlavaError):
    """A checkpoint is missing, damaged, of another shape, or of a refused kind."""

    exit_code = 4


class MemoryFileError(HourLlavaError):
    """A memory is damaged, of another version, or belongs to another video, encoder or frame rate."""

    exit_code = 5


class DataError(HourLlavaError):
    """A record, feature file or shard breaks its format."""

    exit_code = 6


class InputError(HourLlavaError, ValueError):
    """A prompt, question or layout that the model cannot take."""

    exit_code = 7


class TrainingError(HourLlavaError):
    """A training run cannot continue: a gradient is not finite, or the checkpoint is of another run."""

    exit_code = 8


class PartlyDoneError(HourLlavaError):
    """Some items failed or have problems, and are listed; all others are done."""

    exit_code = 9


class Cancelled(HourLlavaError):
    """The caller, or the end of the model, has cancelled this."""

    exit_code = 10


class EngineBusy(HourLlavaError):
    """Too many calls wait already; try again later.

    Attributes:
        retry_after_seconds: when there may be room.
    """

    exit_code = 11

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StorageError(HourLlavaError):
    """A disk is full, or cannot be written to."""

    exit_code = 12
