"""Synthesis against a local server that answers from MarathonWorld: quality, throughput.

    python benchmarks/synthesis.py quality      # events, captions, answers, evidence; what the checks find
    python benchmarks/synthesis.py throughput   # requests in flight, planning, estimates

The server (`tests/synthesis/model_server.py`) is a process of its own. It recognises the frames that it is sent, and
answers all later requests from their texts. Frames are 64 pixels wide; all of them are drawn, sent and looked at.
Faults of servers, and kills, are in `tests/synthesis/test_kill.py`.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.remove(str(Path(__file__).parent))  # tests/synthesis has the name of this file

from hourllava.synthesis.videos import find_videos
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.reference import Reference, write_reference
from hourllava.world.rng import Draws
from synthesis.mischief import QUESTION_MISCHIEF, planted
from synthesis.scoring import (
    SUMMARY_TASK,
    event_scores,
    evidence_scores,
    fact_scores,
    filter_scores,
    policy_scores,
    rows_of,
)

TESTS = Path(__file__).parent.parent / "tests"
MODEL, VERIFIER = "test-model", "other-model"


def write_videos(folder: Path, count: int, minutes: tuple[float, float], difficulty: str = "normal") -> float:
    """Write references to videos; gives their hours."""
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    for k in range(count):
        draws = Draws("synthesis-benchmark", k)
        seconds = min(draws.between(int(60 * minutes[0]), int(60 * minutes[1])) for _ in range(2))
        reference = Reference(
            seed=k,
            duration_seconds=seconds,
            split="train",
            density=DIFFICULTIES[difficulty],
            needles=None,
            size_pixels=64,
        )
        path = folder / f"v{k:03}.world.json"
        if not path.exists():  # with --keep, what an interrupted benchmark made is kept
            write_reference(reference, path)
        total += seconds
    return total / 3600


class Server:
    """The test server as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()

    def counts(self) -> dict[str, Any]:
        """What it has counted so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def serving(videos: Path, **options: Any) -> Iterator[Server]:
    """A server for the videos of a folder."""
    command = [sys.executable, str(TESTS / "synthesis" / "model_server.py"), str(videos)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", json.dumps(value) if name == "faults" else str(value)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Server(process)
    finally:
        process.kill()
        process.wait()


def command_of(videos: Path, out: Path, address: str, settings: dict[str, Any], *more: str) -> list[str]:
    """The command of a run."""
    path = out.with_name(f"{out.name}.yaml")
    path.write_text(yaml.safe_dump(settings))
    models = ["--captioner", f"{MODEL}@{address}", "--writer", f"{MODEL}@{address}"]
    models += ["--verifier", f"{VERIFIER}@{address}", "--settings", str(path)]
    return [sys.executable, "-m", "hourllava", "synth", str(videos), "--out", str(out), *models, *more]


def run(videos: Path, out: Path, address: str, settings: dict[str, Any], *more: str) -> tuple[int, str, float]:
    """(exit code, output, seconds) of a run."""
    begun = time.monotonic()
    done = subprocess.run(
        command_of(videos, out, address, settings, *more), capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 9):
        raise SystemExit(done.stderr)
    return done.returncode, done.stdout, time.monotonic() - begun


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def quality(folder: Path, given: argparse.Namespace) -> None:
    """Scores of a clean run, and of runs with a writer that is wrong on purpose."""
    videos = folder / "videos"
    hours = write_videos(videos, given.videos, (3, given.minutes))
    print(f"{given.videos} videos of 3 to {given.minutes} minutes, {hours:.2f} hours")
    with serving(videos) as server:
        _, text, seconds = run(videos, folder / "clean", server.address, {})
        counts = server.counts()
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(text, f"{seconds:.0f} s; {sum(counts['calls'].values())} requests")
    print(f"most memory: {most} MiB in the run, {counts['most_memory_mib']} MiB in the server")
    captions = rows_of(folder / "clean" / "jsons" / "captions.jsonl")
    table(("events", "score"), [(name, f"{v:.3f}") for name, v in event_scores(captions, videos).items()])
    facts = fact_scores(captions, videos)
    table(("facts of clip captions", "precision", "recall", "true facts"),
          [(a, percent(p), percent(r), n) for a, (p, r, n) in facts.items()])  # fmt: skip
    table(("evidence", "score"), [(k, f"{v:.3f}") for k, v in evidence_scores(folder / "clean", videos).items()])
    print((folder / "clean" / "card.md").read_text().partition("## Questions")[2].partition("## What")[0])

    estimates(videos, folder / "clean")
    print_verifiers(folder, videos, min(given.videos, given.policy_videos))
    kinds = {kind: 0.03 for kind in QUESTION_MISCHIEF if kind != "telltale"}
    out = captioned_copy(folder, "mischief")
    with serving(videos, faults=kinds, seed=2) as server:
        run(videos, out, server.address, {"checks": {"guessing": False}})
    print_planted(folder / "clean", out, kinds)
    out = captioned_copy(folder, "telltale")
    with serving(videos, faults={"telltale": 0.3}, seed=2) as server:
        run(videos, out, server.address, {"checks": {"verifier": False, "guessing": False}})
    lines = (out / "card.md").read_text().splitlines()
    print("a word that only right options have, in 30 % of multiple choice:")
    print("\n".join(line for line in lines if line.startswith(("| all", "| blind", "| task"))))


def print_planted(clean: Path, spoilt: Path, rates: dict[str, float]) -> None:
    """What became of the questions that were spoilt on purpose, and of the others."""
    dropped = {row["question_id"]: row["check"] for row in rows_of(spoilt / "jsons" / "dropped.jsonl")}
    found: dict[str, Counter[str]] = {}
    for row in rows_of(clean / "jsons" / "questions.jsonl"):
        kind = planted(rates, 2, row) or "none"
        if row["task"] != SUMMARY_TASK:
            found.setdefault(kind, Counter())[dropped.get(row["question_id"], "kept")] += 1
    lines = []
    for kind, ends in sorted(found.items()):
        told = ", ".join(f"{name} {number}" for name, number in ends.most_common())
        lines.append((kind, ends.total(), percent(1 - ends["kept"] / ends.total()), told))
    table(("mischief", "questions", "dropped %", "by"), lines)


VERIFIERS: dict[str, tuple[dict[str, float], bool]] = {
    "none": ({}, False),
    "never errs": ({}, True),
    "errs in 10 % of its answers": ({"verifier errs": 0.1}, True),
    "errs about 10 % of the questions, always": ({"verifier misjudges": 0.1}, True),
}
POLICIES = ((1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (3, 3))
"""Agreements that keep a question, and objections that drop it."""


def print_verifiers(folder: Path, videos: Path, num_videos: int) -> None:
    """What verifiers make of a writer that gives a wrong answer to one question in five, and what they cost."""
    columns = ("wrong before", "wrong after", "right lost")
    rows: list[tuple[object, ...]] = []

    def made(name: str, source: str, rates: dict[str, float], checks: dict[str, Any], *more: str) -> Path:
        out = captioned_copy(folder, name, source) if source else folder / name
        with serving(videos, faults={"wrong answer": 0.2 if source else 0.0} | rates, seed=1) as server:
            run(videos, out, server.address, {"checks": {"guessing": not source} | checks}, *more)
        return out

    def add(name: str, out: Path) -> None:
        found, sums = filter_scores(out, videos), json.loads((out / "card.json").read_text())["verifier"]
        asked = sums["questions"] or 1
        cells = f"{sums['answers'] / asked:.2f}", percent(sums["contradicted_itself"] / asked)
        rows.append((name, int(found["written"]), int(found["kept"]), *(percent(found[c]) for c in columns), *cells))

    add("writer always right, verifier never errs", made("clean", "", {}, {}))
    for k, (name, (rates, is_on)) in enumerate(VERIFIERS.items()):
        out = made("wrong" if k == 0 else f"verifier-{k}", "wrong" if k else "clean", rates, {"verifier": is_on})
        add(name, out)
    table(("verifier", "written", "kept", *(f"{c} %" for c in columns), "answers a question", "contradicts itself %"),
          rows)  # fmt: skip

    both = {"verifier errs": 0.05, "verifier misjudges": 0.05}
    for k, (name, rates) in enumerate({"10 % of answers": {"verifier errs": 0.1}, "half always": both}.items()):
        asked = {"agreements": 3, "objections": 3}
        out = made(f"policies-{k}", "wrong", rates, asked, "--limit", str(num_videos))
        found = [(f"{policy[0]} / {policy[1]}", policy_scores(out, videos, *policy)) for policy in POLICIES]
        print(f"\nerrors: {name}; {num_videos} videos, {found[0][1]['questions']:.0f} questions, the verifier alone")
        table(("agreements / objections", *(f"{c} %" for c in columns), "answers a question"),
              [(name, *(percent(f[c]) for c in columns), f"{f['answers']:.2f}") for name, f in found])  # fmt: skip


def captioned_copy(folder: Path, name: str, of: str = "clean") -> Path:
    """A run's folder without its questions, or of "wrong" without its checks: what came before is not made again."""
    out = folder / name
    if out.exists():
        return out
    with tempfile.TemporaryDirectory(dir=folder) as half:  # a copy that was interrupted does not count
        shutil.copytree(folder / of, Path(half) / name)
        for stage in ("checks",) if of == "wrong" else ("questions", "checks"):
            (Path(half) / name / "stages" / f"{stage}.jsonl").unlink(missing_ok=True)
        (Path(half) / name).rename(out)
    return out


def throughput(folder: Path, given: argparse.Namespace) -> None:
    """Requests in flight, planning in bounded memory, and how good the estimate is."""
    videos = folder / "videos"
    write_videos(videos, 12, (3, 12))
    rows = []
    for limit in (8, 32, 64):
        out = folder / f"in-flight-{limit}"
        with serving(videos, latency_seconds=1.0) as server:
            _, _, seconds = run(videos, out, server.address, {"server": {"concurrency": limit}}, "--until", "questions")
            counts = server.counts()
        flight = [number for _, number in counts["samples"]]
        mean = sum(sorted(flight)[len(flight) // 4 :]) / max(1, len(flight) - len(flight) // 4)
        rows.append((limit, sum(counts["calls"].values()), counts["most_in_flight"], f"{mean:.1f}", f"{seconds:.0f}",
                     f"{sum(counts['calls'].values()) / limit:.0f}"))  # fmt: skip
    table(
        ("limit", "requests", "most in flight", "in flight, upper three quarters", "seconds", "seconds if always full"),
        rows,
    )
    out = folder / "client"
    with serving(videos) as server:
        _, _, seconds = run(videos, out, server.address, {})
        calls = sum(server.counts()["calls"].values())
    print(f"\nwithout latency: {calls} requests in {seconds:.1f} s, server and client on the same cores")
    estimates(videos, out)
    plan_clips_of_many()


def plan_clips_of_many() -> None:
    """10,000 clips become rows; the memory that it takes."""
    import asyncio

    from hourllava.synthesis.rows import RowFile, digest
    from hourllava.synthesis.stage import Item, run_stage

    async def work(item: Item) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"text": "x" * 1500}

    with tempfile.TemporaryDirectory() as name:
        for count in (10_000, 100_000):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            begun = time.monotonic()
            rows = RowFile(Path(name) / f"{count}.jsonl")
            items = (Item(f"clip {k}", digest(k), "m") for k in range(count))
            asyncio.run(run_stage("captions", items, work, rows, concurrency=64))
            rows.close()
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            seconds = time.monotonic() - begun
            print(f"{count} items of 1.5 KB: {seconds:.1f} s, {count / seconds:.0f} rows/s, + {grown / 1024:.0f} MiB")


def estimate_of(text: str) -> tuple[float, float]:
    """Tokens read and written, by the last line of `--dry-run`."""
    read, written = re.findall(r"([\d,]+) tokens read and ([\d,]+) written", text)[0]
    return float(read.replace(",", "")), float(written.replace(",", ""))


def estimates(videos: Path, made: Path) -> None:
    """The estimate by the calls for the first videos of a run, and without any, against all of its calls."""
    names = [video.id for video in find_videos([videos])]
    calls = [row for row in rows_of(made / "requests.jsonl") if "prompt_tokens" in row]
    true = tuple(sum(row[f"{name}_tokens"] for row in calls) for name in ("prompt", "completion"))
    rows = []
    for done in (0, 3, 6):
        out = made.with_name(f"{made.name}-estimate-{done}")
        (out / "stages").mkdir(parents=True, exist_ok=True)
        for name in ("synth.json", "stages/clips.jsonl"):
            shutil.copy(made / name, out / name)
        first = tuple(names[:done])
        lines = [json.dumps(row) + "\n" for row in calls if row["item"].startswith(first)]
        (out / "requests.jsonl").write_text("".join(lines))
        found = estimate_of(run(videos, out, "http://nowhere/v1", {}, "--dry-run")[1])
        rows.append((done, *(f"{f:,.0f}" for f in found), *(f"{100 * (f - t) / t:+.1f}" for f, t in zip(found, true))))
    rows.append(("the server counted", f"{true[0]:,}", f"{true[1]:,}", "", ""))
    table(("videos done", "tokens read", "tokens written", "error %", "error %"), rows)


if __name__ == "__main__":
    PARTS = {part.__name__: part for part in (quality, throughput)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--videos", type=int, default=30)
    parser.add_argument("--minutes", type=int, default=60, help="longest video")
    parser.add_argument("--policy-videos", type=int, default=8, help="for how often a verifier should be asked")
    parser.add_argument("--keep", type=Path, help="folder for all files, in place of a temporary one")
    arguments = parser.parse_args()
    if arguments.keep is not None:
        PARTS[arguments.part](arguments.keep, arguments)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            PARTS[arguments.part](Path(temporary), arguments)
