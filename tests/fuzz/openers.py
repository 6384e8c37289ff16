"""Opening files as a user does. A function returns None, or a word for another outcome than the whole file."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

MAX_SAMPLES = 200_000
"""More samples than a day has seconds are a runaway clock."""


@cache
def engine() -> Any:
    from hourllava import HourLlava

    return HourLlava.from_pretrained("nano")


def video(path: Path) -> str | None:
    """Reads all frames: they must lie on the grid and come to an end."""
    from hourllava.video import read_frames

    count = 0
    with read_frames(path, size_pixels=(48, 64), num_processes=1, timeout_seconds=30) as reader:
        for batch in reader:
            assert batch.frames.shape == (len(batch), 48, 64, 3)
            for seconds in batch.sample_seconds:
                assert seconds == count, f"sample {count} is at {seconds}"
                count += 1
                assert count < MAX_SAMPLES, "the video does not end"
        has_gaps = bool(reader.gaps)
    return "right length" if count == 6 else "other length with a gap" if has_gaps else "other length without a gap"


def watched(path: Path) -> str | None:
    memory = engine().watch(path, cache=None)
    engine().ask(memory, "What is there?", max_new_tokens=3)
    return None


def playlist(path: Path) -> str | None:
    """A playlist must not be read: it shows another file."""
    from hourllava.errors import VideoError
    from hourllava.video import read_frames

    try:
        with read_frames(path, num_processes=1, timeout_seconds=30) as reader:
            count = sum(len(batch) for batch in reader)
    except VideoError:
        return "refused"
    raise AssertionError(f"{path.name} was read as a video of {count} frames: {path.read_bytes()!r}")


def memory(path: Path) -> str | None:
    from hourllava import Memory

    loaded = Memory.load(path)
    engine().ask(loaded, "What is there?", max_new_tokens=3)
    return None


def features(path: Path) -> str | None:
    from hourllava.data.features.files import feature_size, load_features

    feature_size(path)
    load_features(path)
    return None


def cached_memory(path: Path) -> str | None:
    """A damaged entry of the cache costs another watch and gives no error."""
    from hourllava import MemoryCache

    store = MemoryCache(path.parent / "cache")
    key = "ab" * 32
    target = store._path(key)  # no public call puts a foreign file into a cache
    target.parent.mkdir(parents=True)
    path.rename(target)
    found = store.get(key)
    store.entries()
    return None if found is None else "found"


def shards(folder: Path) -> str | None:
    from hourllava.data.mds.reader import MdsDataset
    from hourllava.errors import DataError

    dataset = MdsDataset(folder, cache_folder=folder / "cache")
    dataset.has_column("text")
    dataset.fingerprint()
    refused = 0
    for number in range(min(len(dataset), 6)):
        try:
            dataset.row(number)
        except DataError:
            refused += 1
    dataset.lengths_settings()
    dataset.lengths()
    dataset.verify()
    return f"{refused} rows refused" if refused else None


def checkpoint(folder: Path) -> str | None:
    from hourllava import load_model

    load_model(folder)
    return None


def processor(folder: Path) -> str | None:
    from hourllava import HourLlavaProcessor

    made = HourLlavaProcessor.from_pretrained(folder)
    made([[{"role": "user", "content": "What is there?"}]], add_generation_prompt=True)
    return None


def subtitles(path: Path) -> str | None:
    from hourllava.inference.questions.subtitles import SubtitleLines, read_subtitles

    SubtitleLines(read_subtitles(path), 50, lambda texts: [len(text) for text in texts]).near([(1.0, 2.0)])
    return None


def records(path: Path) -> str | None:
    """Checks, mends and groups; the mended copy must have no problems."""
    from hourllava.data.records.check import CheckReport, check_records
    from hourllava.data.records.group import group_records
    from hourllava.data.records.mend import fix_records
    from hourllava.errors import DataError

    media = path.parent
    report = CheckReport()
    problems = list(check_records(path, report, media))
    fixed = path.with_name(f"fixed{path.suffix}")
    fix_records(path, fixed, report, media)
    again = CheckReport()
    left = Counter(problem.kind for problem in check_records(fixed, again, media))
    assert not left, f"problems after --fix: {left}"
    try:
        group_records(path, path.with_name("grouped.json"), num_questions=2)
    except DataError:
        return "grouping refused"
    return "problems" if problems else None


def recipe(path: Path) -> str | None:
    from hourllava.training.recipe import load_recipe

    load_recipe(path)
    return None


def mixture(path: Path) -> str | None:
    from hourllava.data.prepare.mixtures import read_mixture

    read_mixture(path)
    return None


def reference(path: Path) -> str | None:
    from hourllava.video import read_frames
    from hourllava.world.reference import load_reference

    if load_reference(path).duration_seconds > 3600:
        return "long"
    with read_frames(path, size_pixels=(48, 64), num_processes=1) as reader:
        for _ in reader:
            pass
    return None
