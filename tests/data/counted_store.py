"""A store behind `counted://` that notes what is fetched, and fails when it is told to."""

import os
import time
from pathlib import Path
from typing import ClassVar

import fsspec
from fsspec.spec import AbstractFileSystem

from hourllava.data.mds.reader import MdsDataset

ROOT_VARIABLE = "HOURLLAVA_TEST_STORE"


class CountedStore(AbstractFileSystem):
    """The files of the folder $HOURLLAVA_TEST_STORE; a file is there after a moment."""

    protocol = "counted"
    cachable = False
    failures: ClassVar[list[Exception]] = []  # raised by the next calls, in this process

    def _open(self, path, mode="rb", **options):
        root = Path(os.environ[ROOT_VARIABLE])
        with root.with_suffix(".log").open("a") as log:
            log.write(f"{path}\n")
        if self.failures:
            raise self.failures.pop(0)
        time.sleep(0.02)
        return (root / path).open("rb")


fsspec.register_implementation("counted", CountedStore, clobber=True)


def fetched(root):
    """Names that were asked for, in order, by all processes."""
    path = root.with_suffix(".log")
    return [line.rpartition("/")[2] for line in path.read_text().splitlines()] if path.exists() else []


def read_all(address, cache):
    """What the ids of a data set's rows are; run by processes of their own."""
    return [row["text"]["id"] for row in MdsDataset(address, cache_folder=cache)]
