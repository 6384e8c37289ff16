"""A real model that is far too small as the writer of synthesis: does the pipeline say so by its own figures?

    transformers serve FOLDER --port 8100                               # for example SmolLM2-135M
    python benchmarks/synthesis_small_model.py FOLDER@http://localhost:8100/v1

First a server between it and the run answers all other requests from MarathonWorld's truth and passes on those for
questions alone, so that the model is given true captions and events, and its questions reach the checks. Then the model
writes everything: it must find the events before it can ask.
"""

import argparse
import json
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.remove(str(Path(__file__).parent))  # tests/synthesis has the name of another benchmark

from hourllava.synthesis.job import Cast
from hourllava.synthesis.models.request import Reply, Request
from synthesis.model_server import ModelServer
from synthesis.runs import MODEL, synthesise, write_world
from synthesis.scoring import filter_scores, rows_of

TIMEOUT_SECONDS = 1800
SETTINGS: dict[str, Any] = {
    "questions": {"per_task": 1, "tasks": ["Object Attribute", "Scene Recognition", "Temporal Order"]},
    "sampling": {"max_tokens": {"events": 192, "open_questions": 96, "choice_questions": 160}},
    "retries": {"content": 1},
    "server": {"concurrency": 1, "timeout_seconds": TIMEOUT_SECONDS},
    "checks": {"guessing": False},
}
"""One task a request: the easiest form of it."""


class PassingOn(ModelServer):
    """A server that passes requests for questions on to another one.

    Args:
        model, address: of the other one.
        scripts: for all other requests.
    """

    def __init__(self, model: str, address: str, scripts: Any) -> None:
        super().__init__(scripts)
        self._real, self._address = model, address
        self.replies: list[str] = []

    def answer(self, request: Request) -> Reply:
        """The other server's answer to a request for questions, the truth to others."""
        if not request.kind.endswith("_questions"):
            return super().answer(request)
        messages = [{"role": "system", "content": request.system}, {"role": "user", "content": request.text}]
        body = {"model": self._real, "messages": messages, "max_tokens": request.max_tokens}
        body |= {"temperature": request.temperature, "seed": request.seed}
        asked = urllib.request.Request(
            f"{self._address}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS) as response:
            found = json.load(response)
        choice, usage = found["choices"][0], found["usage"]
        self.replies.append(choice["message"]["content"])
        print(f"reply {len(self.replies)}: {usage['completion_tokens']} tokens", file=sys.stderr, flush=True)
        return Reply(
            choice["message"]["content"], choice["finish_reason"],
            prompt_tokens=usage["prompt_tokens"], completion_tokens=usage["completion_tokens"],
        )  # fmt: skip


def writer_alone(folder: Path, spec: str, videos: int) -> None:
    """The model as writer of everything, from true captions."""
    write_world(folder / "few", [60] * videos)
    done = synthesise(folder / "few", folder / "alone", cast=Cast("world", spec, "world"), settings=SETTINGS)
    print("## All by the model\n", *done.lines, f"ended with: {done.error}", sep="\n")
    print((folder / "alone" / "costs.md").read_text())


def questions_alone(folder: Path, spec: str, videos: int) -> None:
    """The model as writer of questions, from true captions and events."""
    model, _, address = spec.rpartition("@")
    scripts = write_world(folder / "videos", [60] * videos, seed=1)
    with PassingOn(model, address, scripts) as server:
        done = synthesise(folder / "videos", folder / "data", server.address, settings=SETTINGS)
        print("## Questions by the model\n", *done.lines, f"ended with: {done.error}", sep="\n")
        replies = server.replies
    print((folder / "data" / "costs.md").read_text())
    log = rows_of(folder / "data" / "requests.jsonl")
    calls = sum(row.get("model") == MODEL and row["kind"].endswith("_questions") for row in log)
    bad = Counter(row["unusable"] for row in log if "unusable" in row and row["kind"].endswith("_questions"))
    share = f"{100 * bad.total() / calls:.0f} %"
    print(f"{calls} requests for questions; replies that could not be used: {share}, {dict(bad)}")
    rows = rows_of(folder / "data" / "stages" / "questions.jsonl")
    good = [row for row in rows if row["status"] == "ok"]
    written = sum(len(row["value"]["questions"]) for row in good)
    print(f"{len(good)} of {len(rows)} items have an answer of the form, with {written} questions")
    left_out = sum((Counter(row["value"]["left_out"]) for row in good), Counter())
    print(f"left out before the checks: {dict(left_out)}")
    kept, dropped = (rows_of(folder / "data" / "jsons" / f"{name}.jsonl") for name in ("questions", "dropped"))
    print(f"{len(kept)} kept; dropped: {dict(Counter(row['check'] for row in dropped))}")
    if kept or dropped:
        print({name: round(value, 3) for name, value in filter_scores(folder / "data", folder / "videos").items()})
    for name, some in (("kept", kept), ("dropped", dropped)):
        for row in some[:3]:
            print(f"- {name}: {row['task']}: {row['question'][:300]} - {row['answer'][:200]} {row.get('reason', '')}")
    for text in sorted(replies, key=len)[:: max(1, len(replies) // 3)][:3]:
        print(f"- a reply: {text[:400]!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="MODEL@ADDRESS")
    parser.add_argument("--videos", type=int, default=9, help="6 requests each, and as many retries")
    parser.add_argument("--keep", type=Path, help="folder for all files, in place of a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        questions_alone(place, given.model, given.videos)
        writer_alone(place, given.model, max(1, given.videos // 6))
