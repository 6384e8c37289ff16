"""A small data folder as a user has it: MarathonWorld's videos beside generated pictures, texts and short clips."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hourllava.world.making.make import make_settings, make_world
from video.clips import write_clip

NUM_VIDEOS, NUM_CLIPS, NUM_PICTURES, NUM_PAIRS, NUM_TEXTS = 2, 4, 9, 6, 7

MIXTURE = {
    "parts": 3,
    "sources": {
        "world": {
            "kind": "video", "media": "VideoMarathon/videos", "features": "VideoMarathon/features", "workers": 2,
            "questions_per_record": 5, "files": {"VideoMarathon/jsons/videomarathon.json": "first:50%"},
        },
        "references": {
            "kind": "video", "media": "World/videos", "questions_per_record": 3,
            "files": {"World/jsons/videomarathon.json": "end:20%"},
        },
        "clips": {
            "kind": "video", "media": "LLaVA-Video-178K", "features": "LLaVA-Video-178K/features",
            "files": {"LLaVA-Video-178K/jsons/clips.jsonl": "all"},
        },
        "pictures": {
            "kind": "image", "media": "LLaVA-OneVision", "only_images": True,
            "files": {"LLaVA-OneVision/jsons/pictures.json": "all"},
        },
        "pairs": {"kind": "images", "media": "LLaVA-OneVision", "files": {"LLaVA-OneVision/jsons/pairs.json": "all"}},
        "texts": {"kind": "image", "media": "LLaVA-OneVision", "files": {"LLaVA-OneVision/jsons/texts.json": "all"}},
    },
    "stages": {
        "s1": {"streams": {"0": ["pictures_part0..2"]}},
        "s2": {
            "streams": {"0": ["pictures_part0", "pairs_part0", "texts_part0", "clips_part0", "references_part0..2"]}
        },
        "s3": {
            "videos": "features",
            "streams": {
                "0": ["clips_part1..2", "pairs_part1", "texts_part1", "pictures_part1:first"],
                "1": ["world_part0..2", "pairs_part2", "texts_part2", "pictures_part1:second"],
            },
        },
    },
}  # fmt: skip


def turns(question, answer="yes", marks=1):
    return [{"from": "human", "value": "<image>\n" * marks + question}, {"from": "gpt", "value": answer}]


def make_data(root: Path) -> Path:
    """Fill `root` in the folder layout of the README; returns the file of the mixture."""
    make_world(
        make_settings(NUM_VIDEOS, "0.2", 0, "train", "easy", None, 1, "both", 64, "mp4"), root / "VideoMarathon", 1
    )
    make_world(make_settings(1, "1", 1, "train", "easy", None, 1, "both", 64, "reference"), root / "World", 1)
    (root / "LLaVA-Video-178K" / "s").mkdir(parents=True)
    for k in range(NUM_CLIPS):
        write_clip(root / "LLaVA-Video-178K" / "s" / f"{k}.mp4", num_frames=8 + 4 * k, fps=4)
    clips = [
        {"id": f"c{k}", "data_source": "s", "video": f"s/{k}.mp4", "conversations": turns(f"Clip {k}?")}
        for k in range(NUM_CLIPS)
    ]
    save(root / "LLaVA-Video-178K/jsons/clips.jsonl", clips)
    rng = np.random.default_rng(0)
    (root / "LLaVA-OneVision" / "images").mkdir(parents=True)
    for k in range(NUM_PICTURES):
        pixels = rng.integers(0, 255, (20 + 9 * k, 90 - 7 * k, 3), np.uint8)
        Image.fromarray(pixels).save(root / "LLaVA-OneVision" / "images" / f"{k}.{('jpg', 'png')[k % 2]}")
    names = sorted(f"images/{path.name}" for path in (root / "LLaVA-OneVision" / "images").iterdir())
    pictures = [{"id": f"p{k}", "image": name, "conversations": turns(f"Picture {k}?")} for k, name in enumerate(names)]
    save(root / "LLaVA-OneVision/jsons/pictures.json", pictures)
    pairs = [
        {"id": f"m{k}", "image": [names[k], names[-1 - k]], "conversations": turns(f"Which of the two? {k}", marks=2)}
        for k in range(NUM_PAIRS)
    ]
    save(root / "LLaVA-OneVision/jsons/pairs.json", pairs)
    texts = [{"id": f"t{k}", "conversations": turns("Why? " * (k + 1), marks=0)} for k in range(NUM_TEXTS)]
    save(root / "LLaVA-OneVision/jsons/texts.json", texts)
    path = root / "mixture.json"
    path.write_text(json.dumps(MIXTURE))
    return path


def save(path: Path, records: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in records]
    text = "\n".join(lines) if path.suffix == ".jsonl" else "[" + ",\n".join(lines) + "]"
    path.write_text(text + "\n")
