"""Public benchmarks in miniature: folders in the exact published shapes, with invented questions and all known quirks.

Each function fills a folder as it lies after a download and unpacking, and gives it back. Which quirk is where stands
beside the row. Videos last two to four seconds.
"""

import functools
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hourllava.world.generate import DIFFICULTIES
from hourllava.world.making.records import question_rows
from hourllava.world.reference import Reference, write_reference
from video.clips import write_clip

SRT_TAG = '<font color="white" size=".72c">{}</font>'


@functools.cache
def _clips() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="hourllava-tests-")


@functools.cache
def _clip(num_frames: int, container: str) -> Path:
    return write_clip(Path(_clips().name) / f"{num_frames}.{container}", num_frames=num_frames, fps=2)


def put_video(path: Path, seconds: int = 2) -> None:
    """A video of so many seconds, at two frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_clip(2 * seconds, "mkv" if path.suffix == ".mkv" else "mp4"), path)


def put_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def put_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def put_srt(path: Path, cues: Iterable[tuple[float, float, str]], tag: str = SRT_TAG) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)

    def clock(seconds: float) -> str:
        return f"00:{int(seconds) // 60:02d}:{int(seconds) % 60:02d},{round(1000 * (seconds % 1)):03d}"

    sections = [
        f"{k}\n{clock(start)} --> {clock(end)}\n{tag.format(text)}\n" for k, (start, end, text) in enumerate(cues, 1)
    ]
    path.write_text("\n".join(sections), encoding="utf-8")


def put_zip(path: Path, names: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"a video" * 100)


# ------------------------------------------------------------------------------------------------ Video-MME

_MME = [  # (number, length, domain, YouTube id, file, whether it has subtitles)
    ("901", "short", "Knowledge", "AAAAAAAAAA1", "AAAAAAAAAA1.MP4", False),  # another suffix; no subtitles, by design
    ("902", "medium", "Life Record", "AAAAAAAAAA2", "AAAAAAAAAA2.mp4", True),
    ("903", "long", "Knowledge", "-AAAAAAAAA3", "-AAAAAAAAA3.mkv", True),  # a name that looks like an option
    ("904", "long", "Multilingual", "AAAAAAAAAA4", None, False),  # still packed, and long ones do have subtitles
]


def video_mme(root: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for number, length, domain, key, file, has_subtitles in _MME:
        for k in range(3):
            rows.append(
                {
                    "video_id": number,
                    "duration": length,
                    "domain": domain,
                    "sub_category": "Astronomy" if k else "Law",
                    "url": f"https://www.youtube.com/watch?v={key}",
                    "videoID": key,
                    "question_id": f"{number}-{k + 1}",
                    "task_type": ("Object Reasoning", "Counting Problem", "OCR Problems")[k],
                    "question": f"Who is shown {('first', 'next', 'last')[k]}?",
                    "options": ["A. Ann.", "B. Anna.", "C. Nobody.", "D. A dog."],  # one is another's prefix
                    "answer": "ABCD"[(k + int(number)) % 4],
                }
            )
        if file:
            put_video(root / "data" / file, 2 + (number == "902"))  # no two files are alike
        if has_subtitles:
            put_srt(root / "subtitle" / f"{key}.srt", [(0.0, 1.2, "Good day."), (1.5, 2.0, "This is Ann.")])
    rows[4]["answer"] = "E"  # no option
    rows.append({**rows[0], "question": "Who is shown in the end?"})  # an id that is there twice
    with (root / "subtitle" / "AAAAAAAAAA2.srt").open("a") as file_:
        file_.write("\n3\n00:00:01,900 --> 00:00:02,000\nwithout a tag\n")
    put_parquet(root / "videomme" / "test-00000-of-00001.parquet", rows)
    put_zip(root / "videos_chunked_01.zip", ["data/AAAAAAAAAA1.MP4", "data/AAAAAAAAAA2.mp4"])
    put_zip(root / "videos_chunked_02.zip", ["data/AAAAAAAAAA4.mp4"])
    return root


# ------------------------------------------------------------------------------------------------ TempCompass

_COMPASS: dict[str, dict[str, dict[str, list[dict[str, str]]]]] = {
    "multi-choice": {
        "1000000001_reverse": {  # a name with a suffix
            "action": [
                {"question": "What is the cup doing?\nA. filling\nB. emptying\nC. spinning", "answer": "B. emptying"},
                {"question": "What is the hand doing?\nA. wave\nB. waving", "answer": "B. waving"},  # two options
            ],
            "order": [{"question": "What is first?\nA. red\nB. blue\nC. black\nD. white", "answer": "D. white"}],
        },
        "1000000002": {"speed": [{"question": "How fast?\nA. slow\nB. fast", "answer": "A. slow"}]},
    },
    "yes_no": {
        "1000000001_reverse": {"action": [{"question": "Is it filling?", "answer": "no"}] * 2},  # a row that is twice
        "1000000002": {"speed": [{"question": "Is it slow?", "answer": "yes"}]},
    },
    "caption_matching": {  # the three wordings
        "1000000001_reverse": {
            "action": [
                {
                    "question": "Which caption matches the video better?\nCaption A: It fills.\nCaption B: It empties.",
                    "answer": "Caption B: It empties.",
                },
                {
                    "question": "Which description is more suitable?\nOption 1: It empties.\nOption 2: It fills.",
                    "answer": "Option 1: It empties.",
                },
            ],
        },
        "1000000002": {
            "speed": [
                {
                    "question": "Which sentence is better?\nSentence A: It is slow.\nSentence B: It is fast.",
                    "answer": "Sentence A: It is slow.",
                }
            ]
        },
    },
    "captioning": {
        "1000000001_reverse": {
            "action": [
                {
                    "question": "Describe what the cup does.\nfilling, emptying, spinning\nGenerated Caption:",
                    "answer": "B. emptying",
                }
            ]
        },
    },
}
_META = {
    "1000000001_reverse": {
        "eval_dim": {"action": {"type": "object motion"}, "speed": None, "order": {}},  # null, and no type
        "content": ["a cup"],
    },
    "1000000002": {"eval_dim": {"speed": {"type": "absolute speed"}}, "content": []},
}


def tempcompass(root: Path) -> Path:
    for task, videos in _COMPASS.items():
        put_json(root / "questions" / f"{task}.json", videos)
    put_json(root / "meta_info.json", _META)
    for video in _META:
        put_video(root / "videos" / f"{video}.mp4")
    return root


def tempcompass_hub(root: Path) -> Path:
    """The hub's parquets; captioning has the judge's question in columns."""
    for task, videos in _COMPASS.items():
        rows = [
            {"video_id": video, **asked, "dim": dim}
            for video, dims in videos.items()
            for dim, some in dims.items()
            for asked in some
        ]
        if task == "captioning":
            first = _COMPASS["multi-choice"]["1000000001_reverse"]["action"][0]
            rows = [{**row, "mc_question": first["question"], "mc_answer": first["answer"]} for row in rows]
        put_parquet(root / task / "test-00000-of-00001.parquet", rows)
    put_zip(root / "tempcompass_videos.zip", ["videos/1000000001_reverse.mp4", "videos/1000000002.mp4"])
    put_video(root / "videos" / "1000000001_reverse.mp4")
    return root


# ------------------------------------------------------------------------------------------------ LongVideoBench

_LVB = [
    {"id": "LVBvideo001_0", "video_path": "LVBvideo001.mp4", "subtitle_path": "LVBvideo001_en.json",
     "question": "When the text 'go' appears, what is on the table?", "candidates": ["a cup", "a hat"],
     "correct_choice": 1, "duration": 2.0, "duration_group": 15, "question_category": "T2O",
     "topic_category": "NP-News-Programs", "level": "L1-Perception", "starting_timestamp_for_subtitles": 34.0},
    {"id": "LVBvideo002_0", "video_path": "LVBvideo002.mp4", "subtitle_path": "LVBvideo002_en.json",
     "question": "Which is first?", "candidates": ["a cup", "a hat", "a key", "a pen", "an egg"],
     "correct_choice": 4, "duration": 3.0, "duration_group": 3600, "question_category": "SSS",
     "topic_category": "KA-Art", "level": "L2-Relation", "starting_timestamp_for_subtitles": 0.0},
    {"id": "LVBvideo002_1", "video_path": "LVBvideo002.mp4", "subtitle_path": "LVBvideo002_en.json",
     "question": "Which is last?", "candidates": ["a cup", "a hat", "a key"],
     "correct_choice": 0, "duration": 3.0, "duration_group": 3600, "question_category": "T2O",
     "topic_category": "KA-Art", "level": "L2-Relation", "starting_timestamp_for_subtitles": 0.0},
    {"id": "@user-x-1_0", "video_path": "@user-x-1.mp4", "subtitle_path": "@user-x-1_en.json",  # not in the archive
     "question": "What is seen?", "candidates": ["a cup", "a hat", "a key", "a pen"],
     "correct_choice": 2, "duration": 9.0, "duration_group": 60, "question_category": "S2O",
     "topic_category": "TT", "level": "L1-Perception", "starting_timestamp_for_subtitles": 0.0},
]  # fmt: skip


def _lvb_media(root: Path) -> None:
    put_video(root / "videos" / "LVBvideo001.mp4", 3)  # longer than its `duration`
    put_video(root / "videos" / "LVBvideo002.mp4", 3)
    # The whole video's subtitles: the clip begins at 34 s.
    put_json(
        root / "subtitles" / "LVBvideo001_en.json",
        [
            {"start": "00:00:01.000", "end": "00:00:03.200", "line": "long before"},
            {"start": "00:00:34.300", "end": "00:00:35.500", "line": "go"},
            {"start": "00:10:00.000", "end": "00:10:02.000", "line": "long after"},
        ],
    )
    put_json(  # the other shape; an end may be missing
        root / "subtitles" / "LVBvideo002_en.json",
        [{"timestamp": [0.2, 1.4], "text": "first"}, {"timestamp": [1.6, None], "text": "and last"}],
    )
    for part in ("aa", "ab"):
        (root / f"videos.tar.part.{part}").write_bytes(b"a part")
    (root / "subtitles.tar").write_bytes(b"a tar")


def longvideobench(root: Path) -> Path:
    put_json(root / "lvb_val.json", [{"video_id": row["video_path"][:-4], "position": [1], **row} for row in _LVB])
    without_gold = [{name: value for name, value in row.items() if name != "correct_choice"} for row in _LVB]
    put_json(root / "lvb_test_wo_gt.json", without_gold)
    _lvb_media(root)
    return root


def longvideobench_hub(root: Path) -> Path:
    """The hub's parquet: options in columns, unused ones `N/A`."""
    rows = []
    for row in _LVB:
        options = row["candidates"] + ["N/A"] * (5 - len(row["candidates"]))
        rest = {name: value for name, value in row.items() if name != "candidates"}
        rows.append(rest | {f"option{k}": option for k, option in enumerate(options)})
    put_parquet(root / "validation-00000-of-00001.parquet", rows)
    _lvb_media(root)
    return root


# ------------------------------------------------------------------------------------------------ LVBench

_LVBENCH_OPTIONS = "\n(A) A cup\n(B) A cupboard\n(C) A key\n(D) A pen"
_LVBENCH = [
    {"key": "LVBENCHkey1", "type": "cartoon",
     "qa": [
         {"uid": "901", "question": f"What falls first?{_LVBENCH_OPTIONS}", "answer": "C",
          "question_type": ["event understanding", "reasoning"], "time_reference": "00:00-00:01"},
         {"uid": "902", "question": f"What falls next?{_LVBENCH_OPTIONS}", "answer": "A",
          "question_type": ["entity recognition"], "time_reference": "01:02:03-01:02:10"},
         {"uid": "903", "question": f"What falls last?{_LVBENCH_OPTIONS}", "answer": "B",
          "question_type": ["summarization"], "time_reference": "everywhere"},  # no stretch of time
     ]},
    {"key": "LVBENCHkey2", "type": "live",
     "qa": [{"uid": "904", "question": f"What is red?{_LVBENCH_OPTIONS}", "answer": "D",
             "question_type": ["key information retrieval"], "time_reference": "00:01-00:02"}]},
    {"key": "t-RtDI2RWQs", "type": "sport",  # gone from YouTube
     "qa": [{"uid": "905", "question": f"Who wins?{_LVBENCH_OPTIONS}", "answer": "A",
             "question_type": ["temporal grounding"], "time_reference": "00:01-00:02"}]},
]  # fmt: skip


def lvbench(root: Path) -> Path:
    """The authors' file; the second video is named as video2dataset names it."""
    info = {"duration_minutes": 1, "fps": 2.0, "resolution": {"width": 64, "height": 48}}
    lines = [
        json.dumps({"key": row["key"], "type": row["type"], "video_info": info, "qa": row["qa"]}) for row in _LVBENCH
    ]
    (root / "data").mkdir(parents=True)
    (root / "data" / "video_info.meta.jsonl").write_text("\n".join(lines) + "\n")
    put_video(root / "videos" / "LVBENCHkey1.mp4")
    put_video(root / "videos" / "00000" / "000000001.mp4")
    put_json(root / "videos" / "00000" / "000000001.json", {"url": "https://www.youtube.com/watch?v=LVBENCHkey2"})
    return root


def lvbench_hub(root: Path) -> Path:
    rows = [
        {**asked, "key": row["key"], "type": row["type"], "video_path": f"{row['key']}.mp4"}
        for row in _LVBENCH
        for asked in row["qa"]
    ]
    put_parquet(root / "data" / "train-00000-of-00001.parquet", rows)
    put_video(root / "LVBENCHkey1.mp4")
    put_video(root / "LVBENCHkey2.mp4")
    for number in ("001", "002"):
        (root / f"all_videos_split.zip.{number}").write_bytes(b"a piece")
    return root


# ------------------------------------------------------------------------------------------------ MLVU

_FOUR = ["a cup", "a hat", "a key", "a pen"]
_MLVU: dict[str, list[dict[str, Any]]] = {
    "1_plotQA": [{"video": "movie101_1.mp4", "question": "Who?", "candidates": ["x", "x", "y", "z"], "answer": "x",
                  "question_type": "plotQA"}],  # an option that is there twice
    "2_needle": [
        {"video": "needle_4.mp4", "question": "What?", "candidates": _FOUR, "answer": "a cat",
         "question_type": "findNeedle"},  # the answer is no option
        {"video": "needle_9.mp4", "question": "What does the hand do?", "candidates": _FOUR, "answer": "a hat",
         "question_type": "findNeedle"},
    ],
    "3_ego": [{"video": "ego_1.mp4", "question": "Where?", "candidates": _FOUR, "answer": "a key",
               "question_type": "ego"}] * 2,  # a question that is there twice
    "4_count": [{"video": "count_1.mp4", "question": "How many?", "candidates": ["1", "2", "3", "4"], "answer": "3",
                 "question_type": "count"}],
    "6_anomaly_reco": [{"video": "surveil_176.mp4", "question": "Is it normal?", "candidates": _FOUR, "answer": "a pen",
                        "question_type": "anomaly_reco", "duration": 32550}],  # nine hours, it says
    "8_sub_scene": [{"video": "sub_1.mp4", "question": "Describe it.", "answer": "A scene.", "scoring_points": [],
                     "question_type": "subPlot"}],
    "9_summary": [{"video": "sum_1.mp4", "question": "Summarise it.", "answer": "A summary.",
                   "question_type": "summary"}],
}  # fmt: skip


def mlvu(root: Path) -> Path:
    """The authors' files: a folder of videos per task."""
    for task, rows in _MLVU.items():
        put_json(root / "MLVU" / "json" / f"{task}.json", [{"duration": 2.0, **row} for row in rows])
        for row in rows:
            put_video(root / "MLVU" / "video" / task / row["video"])
    return root


def mlvu_hub(root: Path) -> Path:
    """The re-packed rows of dev and test: options in the question, the answer is a letter, videos in one folder."""
    tasks = ("needle", "needle", "count", "ego", "order", "plotQA", "anomaly_reco", "topic_reasoning")
    rows = [
        {
            "video_name": f"needle_90{k}.mp4",
            "question": f"What does hand {k} do?\n(A) waves\n(B) knocks\n(C) points\n(D) writes",
            "candidates": ["waves", "knocks", "points", "writes"],
            "answer": "ABCD"[k % 4],
            "task_type": task,
        }
        for k, task in enumerate(tasks)
    ]
    six = "\n".join(f"({letter}) {letter.lower() * 3}" for letter in "ABCDEF")
    tasks_of_test = (
        "sportsQA", "needleQA", "ego", "anomaly_reco", "count", "order", "plotQA", "topic_reasoning", "tutorialQA",
    )  # fmt: skip
    of_test = [
        {**rows[k % len(rows)], "question": f"Which ({k})?\n{six}", "answer": "AFEDCB"[k % 6], "task_type": task}
        for k, task in enumerate(tasks_of_test)
    ]
    for hub, some in (("MLVU_dev", rows), ("MLVU_Test", of_test)):
        put_parquet(root / hub / "data" / "test-00000-of-00001.parquet", some)
    for k in range(len(rows)):
        put_video(root / "video" / f"needle_90{k}.mp4", 2 + k % 2)
    return root


# ------------------------------------------------------------------------------------------------ EgoSchema

_EGO = [f"aaaaaaaa-000{k}" for k in range(4)]
_FIVE = ["C washes a cup.", "C washes a cup and a pan.", "C cooks.", "C reads.", "C sleeps."]


def egoschema(root: Path) -> Path:
    rows = [{"q_uid": uid, "google_drive_id": "x", "question": "What does C do?"}
            | {f"option {k}": option for k, option in enumerate(_FIVE)} for uid in _EGO]  # fmt: skip
    put_json(root / "questions.json", rows)
    put_json(root / "subset_answers.json", {_EGO[0]: 1, _EGO[1]: 4, _EGO[2]: 0})
    for uid in _EGO[:3]:
        put_video(root / "videos" / f"{uid}.mp4")
    return root


def egoschema_hub(root: Path) -> Path:
    rows = [
        {"question_idx": str(k), "question": "What does C do?", "video_idx": uid,
         "option": [f"{letter}. {text}" for letter, text in zip("ABCDE", _FIVE)], "answer": str(k)}
        for k, uid in enumerate(_EGO)
    ]  # fmt: skip
    put_parquet(root / "Subset" / "test-00000-of-00001.parquet", rows[:3])
    put_parquet(root / "GENERATION" / "test-00000-of-00001.parquet", [{**row, "answer": None} for row in rows])
    for uid in _EGO[:3]:
        put_video(root / "videos" / f"{uid}.mp4")
    return root


# ------------------------------------------------------------------------------------------------ CG-Bench

_CG = [
    {"qid": 1, "video_uid": "cg000000001", "question": "Where is it?", "answer": "at home",
     "choices": ["at home", "at a home", "away", "up", "down"], "right_answer": "A", "clue_intervals": [[0, 1], [1, 2]],
     "domain": "Life", "sub_category": "Daily", "duration": 600.0},
    {"qid": 2, "video_uid": "cg000000001", "question": "Who is it?", "answer": "eight",
     "choices": ["one", "two", "three", "four", "five", "six", "seven", "eight"], "right_answer": "H",
     "clue_intervals": [[1, 2]], "domain": "Life", "sub_category": "Daily", "duration": 600.0},
    {"qid": 3, "video_uid": "cg000000002", "question": "When is it?", "answer": "never",
     "choices": ["now", "then", "soon", "never", "always"], "right_answer": "D", "clue_intervals": [],
     "domain": "Sport", "sub_category": "Ball", "duration": 6000.0},
]  # fmt: skip


def cg_bench(root: Path) -> Path:
    put_json(root / "cgbench_mini.json", _CG)
    put_json(root / "cgbench.json", [*_CG, {**_CG[2], "qid": 4}])
    put_video(root / "cg_videos_720p" / "cg000000001.mp4")
    put_video(root / "cg_videos_720p" / "cg000000002.mp4")
    put_srt(root / "cg_subtitles" / "cg000000001.srt", [(0.0, 1.0, "Here I am."), (1.2, 1.9, "At home.")], "{}")
    return root


# ------------------------------------------------------------------------------------------------ HourVideo


def _hour_question(qid: str, task: str, times: Any, gold: str | None, **changes: str) -> dict[str, Any]:
    answers = {f"answer_{k}": f"answer {k}" for k in range(1, 6)} | changes
    return {"qid": qid, "task": task, "question": f"Which is right ({qid})?", "mcq_test": "...", **answers,
            "correct_answer_label": gold, "relevant_timestamps": times}  # fmt: skip


def hourvideo(root: Path) -> Path:
    pictures = {f"answer_{k}": f"images/{k}.png" for k in range(1, 6)}
    dev = {
        "ego4d-uid-1": {
            "video_metadata": {"duration_in_seconds": 3600.0},
            "benchmark_dataset": [
                _hour_question("q1", "perception/tracking", "00:00:00-00:00:01", "B"),
                _hour_question("q2", "reasoning/predictive", "00:00:02-00:00:03", "E"),  # shows two seconds only
                _hour_question("q3", "navigation/room_to_room_image", None, "A", **pictures),
                _hour_question("q4", "reasoning/spatial/layout", None, "A", **pictures),
                _hour_question("q5", "summarization/compare", ["00:00:00-00:00:01", "00:00:01-00:00:02"], "C"),
                _hour_question("q6", "reasoning/predictive", "later", "C"),  # nobody knows up to when
            ],
        }
    }
    test = {
        uid: {
            **entry,
            "benchmark_dataset": [one | {"correct_answer_label": None} for one in entry["benchmark_dataset"]],
        }
        for uid, entry in dev.items()
    }
    folder = root / "v1.0_release" / "json"
    put_json(folder / "dev_v1.0_annotations.json", dev)
    put_json(folder / "test_v1.0.json", test)
    put_video(root / "videos" / "ego4d-uid-1.mp4", 4)
    return root


# ------------------------------------------------------------------------------------------------ MarathonWorld


def marathonworld(root: Path) -> Path:
    lines = []
    for seed in range(2):
        reference = Reference(
            seed=seed, duration_seconds=30, split="test", density=DIFFICULTIES["normal"], needles=None, size_pixels=64
        )
        video = f"marathonworld/test-{seed}.world.json"
        path = root / "videos" / video
        path.parent.mkdir(parents=True, exist_ok=True)
        write_reference(reference, path)
        rows = question_rows(reference.script(), video, 1, tasks=("Object Attribute", "Scene Recognition"))
        lines += [row.model_dump_json() for row in rows]
    (root / "jsons").mkdir()
    (root / "jsons" / "questions.jsonl").write_text("\n".join(lines) + "\n")
    return root


MINIATURES: Mapping[str, Callable[[Path], Path]] = {
    "video-mme": video_mme,
    "tempcompass": tempcompass,
    "longvideobench": longvideobench,
    "lvbench": lvbench,
    "mlvu": mlvu,
    "egoschema": egoschema,
    "cg-bench": cg_bench,
    "hourvideo": hourvideo,
    "marathonworld": marathonworld,
}
"""By benchmark, the files as their authors offer them."""

HUB_MINIATURES: Mapping[str, Callable[[Path], Path]] = {
    "tempcompass": tempcompass_hub,
    "longvideobench": longvideobench_hub,
    "lvbench": lvbench_hub,
    "mlvu": mlvu_hub,
    "egoschema": egoschema_hub,
}
"""By benchmark, the files as a hub has them re-packed."""
