"""Raw answers for tests of scores, without a model."""

from pathlib import Path
from typing import Any

from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.raw import DataSummary, RawAnswer, RunSettings

FOUR = ("a cup", "a cupboard", "a key", "a pen")


def asked(number: int, gold: str | None = "A", **fields: Any) -> Question:
    """A question with four options about a video of its own, unless told otherwise."""
    given = {
        "id": str(number), "place": number, "video": f"v{number}", "text": f"What is {number}?",
        "question": f"What is {number}?", "lines": FOUR, "options": FOUR, "gold": gold,
        "gold_index": None if gold is None or gold not in "ABCD" else "ABCD".index(gold),
    }  # fmt: skip
    return Question(**{**given, **fields})


def answered(question: Question, output: str, **fields: Any) -> RawAnswer:
    """A raw answer to a question."""
    given: dict[str, Any] = {
        "prompt": question.text, "num_frames": 10, "fps": 1.0, "duration_seconds": 10.0, "version": "0",
        "evidence": ((0.0, 2.0),), "finish_reason": "stop",
    }  # fmt: skip
    return RawAnswer(question=question, output=output, **{**given, **fields})


def summary_of(questions: list[Question], **fields: Any) -> DataSummary:
    """What the files hold that these questions come from."""
    totals: dict[str, dict[str, int]] = {"all": {"all": len(questions)}}
    for question in questions:
        for axis, groups in question.groups.items():
            for group in groups:
                counts = totals.setdefault(axis, {})
                counts[group] = counts.get(group, 0) + 1
    given: dict[str, Any] = {
        "annotations": ("questions.json",), "num_questions": len(questions), "notes": (), "left_out": {},
        "num_videos": len({question.video for question in questions}), "totals": totals,
    }  # fmt: skip
    return DataSummary(**{**given, **fields})


def write_run(out: Path, name: str, answers: list[RawAnswer], *, model: str = "nano", **fields: Any) -> Path:
    """A run's folder with these answers."""
    benchmark = find_benchmark(name)
    protocol = benchmark.protocol(fields.pop("protocol", None))
    out.mkdir(parents=True)
    settings = RunSettings(
        benchmark=name, split=benchmark.splits[0], revision="0", protocol=protocol.name, subtitles=False, model=model,
        weights="0" * 64, max_new_tokens=protocol.max_new_tokens,
    )  # fmt: skip
    (out / "run.json").write_text(settings.model_dump_json())
    questions = [answer.question for answer in answers]
    (out / "data.json").write_text(summary_of(questions, **fields).model_dump_json())
    (out / "raw.jsonl").write_text("".join(answer.model_dump_json() + "\n" for answer in answers))
    return out
