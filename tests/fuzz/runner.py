"""Opens mutants in a child process, so that a hang or a crash is a finding and does not end the test.

The child (`python runner.py`) reads lines `{"door": ..., "number": ...}`, opens the mutant and answers with a line: the
outcome, what was left behind, and the peak memory of the process and its children.
"""

import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

CASE_SECONDS = 60.0
"""A mutant that takes longer counts as a hang: the slowest takes some 5 s."""

START_SECONDS = 240.0
"""For the first answer: the child imports torch and makes the originals."""

MAX_GROWTH_BYTES = 10**9
FAULTS = ("raw exception", "hang", "crash", "left behind")


@dataclass
class Findings:
    """The outcomes of a door's mutants."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak_bytes: int = 0


class Runner:
    """A child that opens mutants; after a hang, a crash or a gigabyte a new one is started. A context manager."""

    def __init__(self) -> None:
        self._child: _Child | None = None
        self._ready: set[str] = set()  # doors whose originals the child has made
        self._first_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, door: str, numbers: range, seed: int) -> Findings:
        """Open all mutants of a door.

        A fault is a raw exception, an error of several lines, a hang, a crash, a gigabyte, or something left behind.
        """
        findings = Findings()
        for number in numbers:
            answer = self._ask(door, number, seed)
            text, peak_bytes = answer.get("text", ""), answer.get("peak_bytes", 0)
            findings.outcomes[answer["outcome"]] += 1
            findings.peak_bytes = max(findings.peak_bytes, peak_bytes)
            if peak_bytes - self._first_bytes > MAX_GROWTH_BYTES:
                findings.faults.append(f"{door} {number}: {peak_bytes / 1e9:.1f} GB: {text}")
                self._end()
            elif answer["outcome"] in FAULTS:
                findings.faults.append(f"{door} {number}: {answer['outcome']}: {text}")
            elif "\n" in text:
                findings.faults.append(f"{door} {number}: an error of several lines: {text}")
            if answer["outcome"] in ("hang", "crash"):
                self._end()
        return findings

    def _ask(self, door: str, number: int, seed: int) -> dict[str, Any]:
        if self._child is None:
            self._child = _Child()
        if door not in self._ready:
            answer = self._child.ask({"door": door, "number": None}, START_SECONDS)
            if "peak_bytes" not in answer:
                self._end()
                raise AssertionError(f"the originals of {door} cannot be made: {answer}")
            self._first_bytes = self._first_bytes or answer["peak_bytes"]
            self._ready.add(door)
        return self._child.ask({"door": door, "number": number, "seed": seed}, CASE_SECONDS)

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._child, self._ready, self._first_bytes = None, set(), 0


class _Child:
    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return {"outcome": "hang", "text": f"nothing for {seconds:.0f} s"}
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            tail = self._errors.read()[-800:].decode(errors="replace")
            return {"outcome": "crash", "text": f"exit code {code}: {tail}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            assert file is not None
            file.close()


def _serve() -> None:
    # What libraries print goes to stderr, not between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers
    from fuzz.doors import DOORS

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    originals: dict[str, Any] = {}
    try:
        for line in sys.stdin:
            question = json.loads(line)
            door = DOORS[question["door"]]
            if question["number"] is None:
                home = folder / question["door"]
                home.mkdir()
                originals[question["door"]] = door.make(home)
                os.environ["XDG_CACHE_HOME"] = str(home / "cache")
                answer: dict[str, Any] = {}
            else:
                # A text as seed: the same in every process, unlike the hash of a tuple.
                rng = random.Random(f"{question['seed']} {question['door']} {question['number']}")
                place = folder / "case"
                place.mkdir()
                answer = _open(door, originals[question["door"]], place, rng)
                shutil.rmtree(place)
            answers.write(json.dumps(answer | {"peak_bytes": _peak_bytes()}) + "\n")
            answers.flush()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open(door: Any, original: Any, place: Path, rng: random.Random) -> dict[str, str]:
    from hourllava.errors import HourLlavaError

    path = door.mutant(original, place, rng)
    children, descriptors = _children(), _num_descriptors()
    try:
        outcome, text = door.open(path) or "read", ""
    except HourLlavaError as error:
        outcome, text = "clear error", str(error)
    except Exception as error:  # noqa: BLE001 - a raw exception is a finding
        frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        return {"outcome": "raw exception", "text": f"{error!r:.300} at {' < '.join(frames[:-7:-1])}"}
    if left := _children() - children:
        return {"outcome": "left behind", "text": f"processes {sorted(left)}"}
    if (more := _num_descriptors() - descriptors) > door.descriptors:
        return {"outcome": "left behind", "text": f"{more} descriptors"}
    return {"outcome": outcome, "text": text}


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def _num_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _peak_bytes() -> int:
    kibibytes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return 1024 * max(kibibytes)


if __name__ == "__main__":
    _serve()
