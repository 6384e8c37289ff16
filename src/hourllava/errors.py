"""The errors a caller can act on.

Every message says what was got, what is allowed and what to do next, on one line: the command prints it as it is and
exits with the class's `exit_code`. Broken invariants of our own are `assert`s, never one of these.

A command that works on many items goes through all of them first. If some failed it ends with `PartlyDoneError`; if all
failed, with the class of the fault.
"""

import re

# Line ends and other control characters, those of Unicode among them: file names may hold any.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """A text on one line: control characters are written as Python writes them, such as \\n."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


class HourLlavaError(Exception):
    """Base of everything this library raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(HourLlavaError, ValueError):
    """A setting, option or argument is outside what is allowed."""

    exit_code = 2


class VideoError(HourLlavaError):
    """A video cannot be read, or holds no picture."""

    exit_code = 3


class CheckpointError(HourLlavaError):
    """A checkpoint is missing, damaged, of another shape, or of a kind that is refused."""

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
    """A training run cannot go on: a gradient that is not finite, or a checkpoint of another run."""

    exit_code = 8


class PartlyDoneError(HourLlavaError):
    """Some items could not be used or are not well, and are listed; everything else is done."""

    exit_code = 9
