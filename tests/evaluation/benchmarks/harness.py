"""Genuine lmms-eval on our miniatures: its tasks as shipped, with local rows in place of the hub's.

`prepare` fills in the videos that a miniature lacks, because lmms-eval stops at a missing one, and gives $HF_HOME the
folders in which the tasks look for media. `run_harness` runs it in its own environment (`make .venv-lmms-eval/.ready`).
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.benchmarks.miniatures import HUB_MINIATURES, MINIATURES, put_json, put_parquet, put_srt, put_video

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-lmms-eval" / "bin" / "python"


class Task(NamedTuple):
    """A task of lmms-eval, and the run of ours that is the same.

    Attributes:
        name: of the local task.
        shipped: of the task's file, below `lmms_eval/tasks`.
        benchmark: ours.
        rows: of the data below the benchmark's folder.
        split: of the task.
        metric: of the task.
        is_percent: whether the metric is in percent.
        options: of our run.
        group: (axis, group) if the task is a part of our benchmark only.
        more: further lines of the task's file.
    """

    name: str
    shipped: str
    benchmark: str
    rows: str
    split: str
    metric: str
    is_percent: bool = True
    options: tuple[str, ...] = ()
    group: tuple[str, str] | None = None
    more: str = ""


UTILS = "from lmms_eval.tasks.longvideobench.utils import longvideobench_doc_to_visual_v\n"
_WATCHES = "doc_to_visual: !function utils.longvideobench_doc_to_visual_v\n"
_MME, _LVB = "videomme/test-00000-of-00001.parquet", "validation-00000-of-00001.parquet"
TASKS = (
    Task("videomme_local", "videomme/videomme", "video-mme", _MME, "test", "videomme_perception_score"),
    Task(
        "videomme_said_local", "videomme/videomme_w_subtitle", "video-mme", _MME, "test", "videomme_perception_score",
        options=("--subtitles",),
    ),
    *(
        Task(
            f"tempcompass_{kind}_local", f"tempcompass/tempcompass_{file}", "tempcompass",
            f"{kind}/test-00000-of-00001.parquet", "test", "avg_accuracy", group=("task", kind),
        )
        for kind, file in (
            ("multi-choice", "mc"), ("yes_no", "yes_no"), ("caption_matching", "caption_matching"),
            ("captioning", "captioning"),
        )
    ),
    Task("lvb_v_local", "longvideobench/longvideobench_val_v", "longvideobench", _LVB, "validation", "lvb_acc", False),
    Task(
        "lvb_said_local", "longvideobench/longvideobench_val_i", "longvideobench", _LVB, "validation", "lvb_acc", False,
        options=("--subtitles",), more=_WATCHES,
    ),
    Task(
        "lvbench_local", "lvbench/lvbench", "lvbench", "data/train-00000-of-00001.parquet", "train", "lvbench_score",
        False,
    ),
    Task(
        "mlvu_dev_local", "mlvu/mlvu_dev", "mlvu", "MLVU_dev/data/test-00000-of-00001.parquet", "test",
        "mlvu_percetion_score",
    ),
    Task(
        "mlvu_test_local", "mlvu/mlvu_test", "mlvu", "MLVU_Test/data/test-00000-of-00001.parquet", "test",
        "mlvu_percetion_score", options=("--split", "test"),
    ),
    Task(
        "egoschema_local", "egoschema/egoschema_subset", "egoschema", "Subset/test-00000-of-00001.parquet", "test",
        "score", False,
    ),
    Task("cgbench_local", "cgbench/cgbench", "cg-bench", "rows.parquet", "train", "cgbench_accuracy"),
    Task(
        "cgbench_said_local", "cgbench/cgbench_subtitles", "cg-bench", "rows.parquet", "train", "cgbench_accuracy",
        options=("--subtitles",),
    ),
)  # fmt: skip


def prepare(name: str, folder: Path) -> Path:
    """A miniature in which no video and no subtitle file is missing."""
    root = HUB_MINIATURES.get(name, MINIATURES[name])(folder / name)
    if name == "video-mme":
        put_video(root / "data" / "AAAAAAAAAA4.mp4", 4)
        put_srt(root / "subtitle" / "AAAAAAAAAA4.srt", ((k / 50, k / 50 + 0.1, f"Cue {k}.") for k in range(200)))
    if name == "tempcompass":
        put_video(root / "videos" / "1000000002.mp4", 3)
    if name == "longvideobench":
        put_video(root / "videos" / "@user-x-1.mp4", 9)
        put_json(root / "subtitles" / "@user-x-1_en.json", [{"timestamp": [1.5, 4], "text": "a whole number"}])
    if name == "lvbench":
        put_video(root / "t-RtDI2RWQs.mp4", 4)
    if name == "cg-bench":
        rows = json.loads((root / "cgbench_mini.json").read_text())
        put_parquet(root / "rows.parquet", rows)
    return root


def link_media(folder: Path, home: Path) -> None:
    """Where the tasks look for media, below $HF_HOME."""
    places = {
        "videomme": "video-mme", "tempcompass": "tempcompass", "datasets/longvideobench": "longvideobench",
        "lvbench": "lvbench", "mlvu": "mlvu/video", "mlvu_test": "mlvu/video", "egoschema": "egoschema",
    }  # fmt: skip
    for place, target in places.items():
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).symlink_to(folder / target)


def write_tasks(folder: Path, tasks: Path, shipped: Path) -> None:
    """Files of the local tasks.

    Args:
        folder: of the miniatures.
        tasks: gets the files.
        shipped: the folder `lmms_eval/tasks`.
    """
    tasks.mkdir()
    for task in TASKS:
        own = tasks / task.name
        own.mkdir()
        (own / "utils.py").write_text(UTILS)
        (own / f"{task.name}.yaml").write_text(
            f"include: {shipped / task.shipped}.yaml\ntask: {task.name}\ndataset_path: parquet\ndataset_name: null\n"
            f"dataset_kwargs:\n  data_files:\n    {task.split}: {folder / task.benchmark / task.rows}\n{task.more}"
        )


class HarnessRun(NamedTuple):
    """What lmms-eval wrote: results by task, and samples by task in the order of its rows."""

    results: dict[str, dict[str, Any]]
    samples: dict[str, list[dict[str, Any]]]


def run_harness(
    home: Path, tasks: Path, out: Path, names: Sequence[str], model_args: str, *more: str,
    environment: Mapping[str, str] | None = None, prefix: Sequence[str] = (),
) -> HarnessRun:  # fmt: skip
    """Run lmms-eval in its own environment.

    Args:
        home: $HF_HOME.
        tasks: folder of the local tasks.
        out: gets the results.
        names: of tasks.
        model_args: of our model.
        more: arguments.
        environment: further variables.
        prefix: how Python is started for several processes; by default one process.
    """
    command = [str(PYTHON), *prefix, "-m", "lmms_eval", "--model", "hourllava", "--model_args", model_args]
    command += ["--tasks", ",".join(names), "--include_path", str(tasks), "--output_path", str(out), "--log_samples"]
    variables = {
        **os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false", **(environment or {}),
    }  # fmt: skip
    done = subprocess.run(
        [*command, *more], cwd=home, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    found = sorted(out.rglob("*_results.json"))
    # Its exit code is 0 after an exception, too.
    assert len(found) == 1, f"{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    samples = {}
    for name in names:
        (path,) = out.rglob(f"*_samples_{name}.jsonl")
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        samples[name] = sorted(lines, key=lambda line: line["doc_id"])
    return HarnessRun(json.loads(found[0].read_text())["results"], samples)
