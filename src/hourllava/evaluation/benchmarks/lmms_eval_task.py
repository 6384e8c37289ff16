"""Tasks for lmms-eval beside benchmarks that are made here, for other people's models.

    python -m lmms_eval --include_path DATA/lmms_eval --tasks marathonworld_1_test --model ...

Prompts, rule and figure are those of the protocol `plain`. The files hold the folder's path, so they are written anew
when a folder that was moved is made again.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hourllava.choices import CHOICE_INSTRUCTION
from hourllava.files import replacing

FOLDER_NAME = "lmms_eval"
_TASK = """# Written by hourllava eval make.
task: {task}
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files:
    test: {files}
test_split: test
output_type: generate_until
cluster_key: video
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  do_sample: false
process_results: !function utils.process_results
metric_list:
  - metric: accuracy
    aggregation: !function utils.mean_over_lengths
    higher_is_better: true
metadata:
  - version: 1.0
"""
_UTILS = '''"""Written by hourllava eval make: the functions of the tasks beside it."""

from collections import defaultdict
from pathlib import Path

from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer

VIDEOS = Path(__file__).resolve().parents[1] / "videos"
SUFFIXES = (".mp4", ".webm", ".world.json")  # the last is for hourllava itself


def doc_to_visual(doc):
    for suffix in SUFFIXES:
        path = VIDEOS / (doc["video"] + suffix)
        if path.exists():
            return [str(path)]
    raise FileNotFoundError(f"{VIDEOS} lacks the video {doc['video']}; run hourllava eval make")


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    options = [f"{letter}. {option}" for letter, option in zip("ABCDEFGH", doc["options"])]
    return "\\n".join([doc["question"], *options, INSTRUCTION])


def process_results(doc, results):
    letter = extract_mcq_answer(results[0], choices=list("ABCDEFGH"[: len(doc["options"])]))
    answer = "ABCDEFGH"[doc["answer_index"]]
    score = float(letter == answer)
    verdict = {"pred_answer": letter, "answer": answer, "score": score, "seconds": doc["duration_seconds"]}
    return {"accuracy": {**verdict, "question_id": doc["question_id"], "video": doc["video"]}}


def mean_over_lengths(results):
    lengths = defaultdict(list)
    for result in results:
        lengths[result["seconds"]].append(result["score"])
    return 100 * sum(sum(scores) / len(scores) for scores in lengths.values()) / len(lengths)
'''


def write_task(data: Path, task: str, parts: Sequence[str], max_new_tokens: int) -> None:
    """Write the files of a task.

    Args:
        data: the data folder.
        task: its name.
        parts: of the questions.
        max_new_tokens: that an answer may have.
    """
    folder = data / FOLDER_NAME
    folder.mkdir(parents=True, exist_ok=True)
    files = [str((data / "questions" / f"{part}.jsonl").resolve()) for part in parts]
    utils = _UTILS.replace("\n\n\ndef", f'\nINSTRUCTION = "{CHOICE_INSTRUCTION}"\n\n\ndef', 1)
    text = _TASK.format(task=task, files=json.dumps(files), max_new_tokens=max_new_tokens)
    for path, content in ((folder / f"{task}.yaml", text), (folder / "utils.py", utils)):
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
