"""Mutants of every kind of file that users open: each is read correctly or gives a HourLlavaError of one line.

No mutant may give another exception, hang, take a gigabyte, or leave a process or a descriptor behind. `make test-fuzz`
opens 475 videos and some 1,400 other files. `HOURLLAVA_FUZZ_SEED=7` draws other mutants, `HOURLLAVA_FUZZ_SHARE=0.1`
opens a tenth of them.
"""

import os
import sys
from collections.abc import Iterator

import pytest

from fuzz.doors import DOORS
from fuzz.runner import Runner

SEED = int(os.environ.get("HOURLLAVA_FUZZ_SEED", "0"))
SHARE = float(os.environ.get("HOURLLAVA_FUZZ_SHARE", "1"))

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for leftovers in /proc"),
]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as started:
        yield started


@pytest.mark.parametrize("door", DOORS)
def test_mutants_are_read_or_refused_in_one_line(door: str, runner: Runner) -> None:
    findings = runner.run(door, range(max(1, round(DOORS[door].num_cases * SHARE))), SEED)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in findings.outcomes.most_common())
    print(f"{door:<18} {findings.outcomes.total():>4}: {outcomes}; peak {findings.peak_bytes / 1e6:.0f} MB")
    if findings.faults:
        pytest.fail("\n".join([f"{len(findings.faults)} faults", *findings.faults]), pytrace=False)
