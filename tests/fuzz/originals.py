"""Small undamaged files of every kind, made with the library's own writers, PyAV and Pillow."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from conftest import GOLDEN, tiny_config, tiny_model
from fuzz.mutations import damage, damage_tree
from video.clips import write_clip

# Name -> mutants in a whole run. Each lasts 6 s with 5 frames a second and a keyframe every 2 s.
VIDEOS = {
    "h264.mp4": 60,
    "h264.mkv": 55,
    "vp8.webm": 50,
    "mpeg2.ts": 55,
    "h264.ts": 50,
    "mpeg4.avi": 55,
    "mjpeg.mov": 40,
    "animated.gif": 40,
    "mpeg1.mpg": 40,
}
_CODECS = {
    "h264": {"codec": "libx264", "options": {"g": "10", "x264-params": "scenecut=0"}},
    "vp8": {"codec": "libvpx", "options": {"g": "10", "deadline": "realtime"}},
    "mpeg2": {"codec": "mpeg2video", "fps": 25, "options": {"g": "10"}},
    "mpeg4": {"codec": "mpeg4", "options": {"g": "10"}},
    "mjpeg": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "animated": {"codec": "gif", "pixel_format": "rgb8"},
    "mpeg1": {"codec": "mpeg1video", "fps": 25, "num_frames": 148, "options": {"g": "10"}},
}

PLAYLISTS = (
    "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{video}\n#EXT-X-ENDLIST\n",
    '#EXTM3U\n#EXT-X-MAP:URI="{video}"\n#EXTINF:6,\n{video}\n#EXT-X-ENDLIST\n',
    "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{video}\n",
    "ffconcat version 1.0\nfile '{video}'\nduration 6\n",
    "file '{video}'\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT6S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{video}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>\n",
    "[playlist]\nFile1={video}\nNumberOfEntries=1\n",
    "Hello, this is a text of some lines.\nIt names {video}.\n",
    "\x1b[31mred {video}\x1b[0m\n" * 20,
    "WEBVTT\n\n00:00.000 --> 00:05.000\n{video}\n",
)
PLAYLIST_SUFFIXES = (".m3u8", ".m3u", ".mp4", ".mkv", ".ts", ".ffconcat", ".txt", ".mpd", ".sdp", ".avi", ".mov", "")


def video(name: str) -> Callable[[Path], Path]:
    """A maker of one of `VIDEOS`."""
    settings: dict[str, Any] = {"fps": 5, **_CODECS[name.split(".")[0]]}
    num_frames = settings.pop("num_frames", 6 * settings["fps"])
    return lambda folder: write_clip(folder / name, num_frames, **settings)


def frames(folder: Path) -> Path:
    """A folder of numbered pictures in several formats."""
    for number, suffix in enumerate(("png", "jpg", "webp", "bmp", "gif", "tif", "png", "jpg")):
        Image.new("RGB", (48, 32), (30 * number, 100, 50)).save(folder / f"frame{number}.{suffix}")
    return folder


def memory(folder: Path) -> Path:
    """A memory of the nano model."""
    from hourllava.inference.engine import HourLlava
    from hourllava.inference.memories.memory import Memory, WatchedSource
    from hourllava.model.nano import NANO

    engine = HourLlava.from_pretrained(NANO)
    seconds = np.arange(6.0)
    features = torch.randn(6, engine.encoder.grid**2, engine.encoder.feature_width).bfloat16()
    path = folder / "a.memory.safetensors"
    Memory(
        features, seconds, seconds, fps=1.0, duration_seconds=6.0, source=WatchedSource("a.mp4", "sha256:12"),
        encoder=engine.encoder,
    ).save(path)  # fmt: skip
    return path


def features_int8(folder: Path) -> Path:
    """Compressed features."""
    from hourllava.data.features.files import FeatureSettings, write_features
    from hourllava.inference.memories.memory import Memory

    made = Memory.load(memory(folder))
    path = folder / "a.int8.safetensors"
    assert made.encoder is not None
    encoder = made.encoder
    settings = FeatureSettings(
        form="memory", storage="int8", fps=1.0, encoder_digest=encoder.digest,
        feature_width=encoder.feature_width, grid=encoder.grid,
    )  # fmt: skip
    write_features(path, made, settings)
    return path


def features_released(folder: Path) -> Path:
    """Features in the released format."""
    torch.save({"vid_feat": torch.randn(6, 64, 32).half(), "duration": 6.0}, folder / "a.pt")
    return folder / "a.pt"


def shards(folder: Path) -> Path:
    """An MDS folder of two shards, with lengths."""
    from hourllava.data.mds.merge import Measured, write_lengths
    from hourllava.data.mds.writer import ShardWriter

    picture = Image.new("RGB", (16, 12), (200, 10, 10))
    with ShardWriter(folder, {"image": "jpeg", "text": "json"}, size_limit_bytes=1500) as writer:
        for number in range(6):
            turns = [{"from": "human", "value": f"<image>\n{number}?"}, {"from": "gpt", "value": "Red."}]
            writer.write({"image": picture, "text": {"id": str(number), "conversations": turns}})
    write_lengths(folder, Measured(np.ones((6, 3), np.int32), {"of": "these rows"}))
    return folder


def released_checkpoint(folder: Path) -> Path:
    """The released layout: flat config, a tokenizer."""
    for source in (GOLDEN / "tiny_pixels", GOLDEN / "chat" / "tokenizer"):
        shutil.copytree(source, folder, dirs_exist_ok=True)
    return folder


def checkpoint(folder: Path) -> Path:
    """Our own layout, in two files of weights with an index."""
    from transformers import AutoTokenizer

    from hourllava.model.processor import HourLlavaProcessor

    model = tiny_model(tiny_config()).float()
    model.config.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="200KB")
    HourLlavaProcessor(AutoTokenizer.from_pretrained(GOLDEN / "chat" / "tokenizer"), model.config).save_pretrained(
        folder
    )
    return folder


def subtitles_srt(folder: Path) -> Path:
    """Five cues."""
    cues = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n<i>Line</i> {n} café &amp; {{\\an8}}\n\n" for n in range(1, 6)]
    (folder / "a.srt").write_text("".join(cues), encoding="utf-8")
    return folder / "a.srt"


def subtitles_vtt(folder: Path) -> Path:
    """Three cues, a note and a style."""
    head = "WEBVTT - title\n\nSTYLE\n::cue { color: red }\n\nNOTE nothing\n\n"
    cues = [f"id{n}\n00:0{n}.000 --> 00:0{n}.900 align:start\n<v Ann>Line {n}</v>\n\n" for n in range(1, 4)]
    (folder / "a.vtt").write_text(head + "".join(cues), encoding="utf-8")
    return folder / "a.vtt"


def _records() -> list[dict[str, Any]]:
    human = "<image>\nWhat is red?\nA. A car\nB. The house\nC. I\nAnswer with the option's letter."
    turns = [{"from": "human", "value": human}, {"from": "gpt", "value": "B"}]
    more = [{"from": "human", "value": "And blue?"}, {"from": "gpt", "value": "A car."}]
    return [
        {"id": f"r{n}", "data_source": "own", "video": f"v{n}.mp4", "conversations": turns + more * (n % 2)}
        for n in range(4)
    ]


def _questions() -> list[dict[str, Any]]:
    row = {"video": "v.mp4", "data_source": "own", "question_type": "object/mc", "answer": "B"}
    return [{"id": f"q{n}", **row, "question": f"What is {n}?\nA. A car\nB. The house"} for n in range(4)]


def records_json(folder: Path) -> Path:
    """A list of training records."""
    (folder / "r.json").write_text(json.dumps(_records(), indent=1), encoding="utf-8")
    return folder / "r.json"


def records_jsonl(folder: Path) -> Path:
    """The same, a record a line."""
    (folder / "r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in _records()), encoding="utf-8")
    return folder / "r.jsonl"


def questions_jsonl(folder: Path) -> Path:
    """A question table."""
    (folder / "q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in _questions()), encoding="utf-8")
    return folder / "q.jsonl"


def questions_parquet(folder: Path) -> Path:
    """A question table as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(_questions()), folder / "q.parquet")
    return folder / "q.parquet"


_RECIPE = {
    "base": "recipes/finetune-lora.yaml",
    "out": "runs/mine",
    "start": {"checkpoint": "nano"},
    "data": {"streams": [{"folder": "shards/mine", "proportion": 0.5}], "media": "videos"},
    "batch": {"token_budget": 4096, "samples": 4},
    "schedule": {"kind": "cosine", "warmup": 0.03, "epochs": 1},
    "optimizer": {"betas": [0.9, 0.99], "epsilon": 1e-8, "weight_decay": 0.1},
    "learning_rates": {"*": 0, "*.lora_*": 1e-4},
    "seed": 0,
}


def recipe(folder: Path) -> Path:
    """A recipe on top of a shipped one."""
    (folder / "mine.yaml").write_text(yaml.safe_dump(_RECIPE), encoding="utf-8")
    return folder / "mine.yaml"


def damage_yaml(content: bytes, rng: random.Random) -> bytes:
    """Odd values in sound YAML, YAML's own odd values, or damaged bytes."""
    match rng.randrange(3):
        case 0:
            return damage(content, rng)
        case 1:
            text = json.dumps(damage_tree(yaml.safe_load(content), rng))
            return text.encode()
        case _:
            odd = (
                "!!int abc",
                "2001-99-99",
                "!!python/object:os.system x",
                "[" * 3000,
                "&a [*a]",
                "*b",
                "? x",
                "1e999",
            )
            odd += ("!!binary x", "!!timestamp x", "12:99", "0o9", "0x", "~", "\t", "{a: b", "'", "|\n x", "<<: 1")
            lines = content.decode().splitlines()
            place = rng.randrange(len(lines))
            lines[place] = f"{lines[place].split(':')[0]}: {rng.choice(odd)}"
            return "\n".join(lines).encode()


def mixture(folder: Path) -> Path:
    """A mixture of one's own."""
    content = {
        "sources": {"mine": {"kind": "video", "media": "v", "files": {"r.json": "all", "s.json": "first:50%"}}},
        "stages": {"s3": {"streams": {"0": ["mine_part0..4", "mine_part5:first"]}}},
    }
    (folder / "mixture.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "mixture.json"


def reference(folder: Path) -> Path:
    """A drawn video that is not there."""
    from hourllava.world.generate import Density
    from hourllava.world.reference import Reference, write_reference

    made = Reference(seed=1, duration_seconds=8, split="train", density=Density(), needles=0, size_pixels=64)
    write_reference(made, folder / "a.world.json")
    return folder / "a.world.json"
