"""Videos and data sets that several files of tests look at; none of them changes one."""

from pathlib import Path
from typing import NamedTuple

import pytest

from hourllava.world.script import Script
from synthesis.runs import Ended, synthesise, write_world

SECONDS = (60, 64)


class World(NamedTuple):
    """Folder and scripts of two short videos."""

    folder: Path
    scripts: list[Script]


class Offline(NamedTuple):
    """A data set of a question for each task, from MarathonWorld's truth without a server: the offline default."""

    out: Path
    ended: Ended


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("synthesis") / "videos"
    return World(folder, write_world(folder, SECONDS))


@pytest.fixture(scope="session")
def offline(world: World) -> Offline:
    out = world.folder.with_name("data")
    return Offline(out, synthesise(world.folder, out, settings={"questions": {"per_task": 1}}, verifier=False))
