"""Every kind of file that users open: small originals, how a mutant is made, and the public call that opens it."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz import openers, originals
from fuzz.mutations import damage, damage_json

Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Door:
    """One kind of file and how it is opened.

    Attributes:
        make: writes the originals into an empty folder, once; `mutant` gets its result.
        mutant: writes a damaged copy into an empty folder and returns the path to open.
        open: opens the path as a user does; returns None or a word for the outcome.
        num_cases: number of mutants in a whole run.
        descriptors: how many file descriptors may stay open until the garbage collector runs.
    """

    make: Callable[[Path], Any]
    mutant: Callable[[Any, Path, random.Random], Path]
    open: Callable[[Path], str | None]
    num_cases: int
    descriptors: int = 0


def one_file(
    *makers: Callable[[Path], Path], open: Callable[[Path], str | None], cases: int, by: Damage = damage
) -> Door:
    """A door for single files; a mutant is a damaged copy of one of the originals."""

    def mutant(paths: list[Path], place: Path, rng: random.Random) -> Path:
        original = rng.choice(paths)
        path = place / original.name
        path.write_bytes(by(original.read_bytes(), rng))
        return path

    return Door(lambda folder: [make(folder) for make in makers], mutant, open, cases)


def in_folder(
    make: Callable[[Path], Path], names: str, open: Callable[[Path], str | None], cases: int, by: Damage = damage
) -> Door:
    """A door for folders; in a mutant one of the files that match the pattern `names` is damaged."""

    def mutant(folder: Path, place: Path, rng: random.Random) -> Path:
        damaged = rng.choice(sorted(folder.rglob(names)))
        copy = place / "folder"
        for path in sorted(folder.rglob("*")):
            target = copy / path.relative_to(folder)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if path == damaged:
                target.write_bytes(by(path.read_bytes(), rng))
            else:
                shutil.copyfile(path, target)
        return copy

    return Door(make, mutant, open, cases)


def playlists() -> Door:
    """Playlists under names of videos, with a video beside them: all must be refused."""

    def mutant(video: Path, place: Path, rng: random.Random) -> Path:
        named = rng.choice((video.name, str(video), f"file:{video}", f"../{place.name}/{video.name}"))
        shutil.copyfile(video, place / video.name)
        text = rng.choice(originals.PLAYLISTS).format(video=named)
        path = place / f"{rng.choice(('a', 'b c', '%d'))}{rng.choice(originals.PLAYLIST_SUFFIXES)}"
        path.write_bytes(text.encode() if rng.random() < 0.7 else damage(text.encode(), rng))
        return path

    return Door(originals.video("h264.mp4"), mutant, openers.playlist, 80)


DOORS: dict[str, Door] = {
    **{
        f"video {name}": one_file(originals.video(name), open=openers.video, cases=cases)
        for name, cases in originals.VIDEOS.items()
    },
    "video watched": one_file(*map(originals.video, originals.VIDEOS), open=openers.watched, cases=30),
    "playlist": playlists(),
    "folder of frames": in_folder(originals.frames, "*.*", openers.video, 40),
    "memory": one_file(originals.memory, open=openers.memory, cases=110),
    "features": one_file(originals.features_int8, originals.features_released, open=openers.features, cases=120),
    "cached memory": one_file(originals.memory, open=openers.cached_memory, cases=30),
    "shard": in_folder(originals.shards, "*.mds", openers.shards, 120),
    "shard index": in_folder(originals.shards, "index.json", openers.shards, 120, damage_json),
    "lengths": in_folder(originals.shards, "lengths.*", openers.shards, 40),
    "released weights": in_folder(originals.released_checkpoint, "*.safetensors", openers.checkpoint, 30),
    "released config": in_folder(originals.released_checkpoint, "config.json", openers.checkpoint, 60, damage_json),
    "config": in_folder(originals.checkpoint, "config.json", openers.checkpoint, 80, damage_json),
    "weights": in_folder(originals.checkpoint, "*.safetensors", openers.checkpoint, 30),
    "weight index": in_folder(originals.checkpoint, "*.index.json", openers.checkpoint, 40, damage_json),
    "tokenizer": in_folder(originals.checkpoint, "tokenizer*.json", openers.processor, 80, damage_json),
    "subtitles": one_file(originals.subtitles_srt, originals.subtitles_vtt, open=openers.subtitles, cases=120),
    "records list": one_file(originals.records_json, open=openers.records, cases=80, by=damage_json),
    "records lines": one_file(originals.records_jsonl, originals.questions_jsonl, open=openers.records, cases=80),
    "records table": one_file(originals.questions_parquet, open=openers.records, cases=30),
    "recipe": one_file(originals.recipe, open=openers.recipe, cases=80, by=originals.damage_yaml),
    "mixture": one_file(originals.mixture, open=openers.mixture, cases=30, by=damage_json),
    "world reference": one_file(originals.reference, open=openers.reference, cases=30, by=damage_json),
}
