"""A local server that speaks the OpenAI chat protocol and answers from MarathonWorld's scripts, with faults by seed.

    with ModelServer(scripts, faults={"429": 0.1, "not json": 0.1}, seed=1) as server:
        ...  # MODEL@{server.address}
        print(server.counts.calls, server.counts.most_in_flight)

It answers from the pixels and texts that it is sent (`hourllava.synthesis.world`), so wrong frames, times or captions
give wrong answers. A fault is drawn from the seed, the kind of fault and the content of the request. A fault of the
answer comes again whenever the same request is sent; one of the server (`TRANSPORT`) only the first time, or not.

Run as a program it serves until it is killed: `python tests/synthesis/model_server.py --help`.
"""

import argparse
import base64
import contextlib
import io
import json
import re
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import av
from PIL import Image
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a program

from hourllava.synthesis.models.request import Picture, Reply, Request
from hourllava.synthesis.rows import ItemFault, digest
from hourllava.synthesis.times import read_time
from hourllava.synthesis.videos import find_videos
from hourllava.synthesis.world.model import WorldModel, count_tokens, scripts_of
from hourllava.world.script import Script
from synthesis.mischief import MISCHIEF, is_drawn, spoilt

TRANSPORT = ("429", "500", "503", "drop", "html", "empty object", "no choices", "slow")
CONTENT = ("not json", "fenced", "prose", "missing key", "other keys", "extra key", "wrong counts", "cut", "blanks",
           "refusal", "filter", "schema ignored")  # fmt: skip
FAULTS = (*TRANSPORT, *CONTENT, *MISCHIEF)
_TIME = re.compile(r"(\d+:\d\d:\d\d(?:\.\d)?)")
_FENCE = "```"
SLOW_SECONDS = 1.5


@dataclass
class Counts:
    """What a server has seen.

    Attributes:
        calls: by kind of request; those that ended with a fault, too.
        faults: by kind of fault.
        bodies: digest of a request's body -> how often it came.
        prompt_tokens, completion_tokens: of all replies.
        tokens: of both together, by kind of request.
        in_flight, most_in_flight: requests at work.
        samples: (seconds since the start, requests at work) at the arrival of each request.
    """

    calls: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    bodies: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    samples: list[tuple[float, int]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """For another process."""
        fields = ("calls", "faults", "prompt_tokens", "completion_tokens", "tokens", "most_in_flight", "samples")
        return {name: getattr(self, name) for name in fields} | {
            "twice": sum(count > 1 for count in self.answered.values()),
            "most_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }


class ModelServer:
    """A server in a thread of this process.

    Args:
        scripts: of the videos that it will be shown.
        faults: kind -> share of the requests.
        seed: of the draws of faults.
        latency_seconds: before each answer.
    """

    def __init__(
        self,
        scripts: Sequence[Script],
        *,
        faults: Mapping[str, float] | None = None,
        seed: int = 0,
        latency_seconds: float = 0.0,
    ) -> None:
        assert set(faults or {}) <= set(FAULTS), set(faults or {}) - set(FAULTS)
        self.faults, self.seed, self.latency_seconds = dict(faults or {}), seed, latency_seconds
        self.counts = Counts()
        self.is_down = False
        self._model = WorldModel(scripts)
        self._lock, self._computing = threading.Lock(), threading.Lock()
        self._begun = time.monotonic()
        server = self

        class Handler(_Handler):
            owner = server

        self._http = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def drawn(self, kind: str, *content: object) -> bool:
        """Whether a fault of this kind is drawn."""
        return is_drawn(self.faults.get(kind, 0.0), self.seed, kind, *content)

    @contextlib.contextmanager
    def at_work(self, kind: str, body: str):
        """Count a request; yields how often its body has come before."""
        with self._lock:
            counts = self.counts
            times = counts.bodies[body]
            counts.bodies[body] += 1
            counts.calls[kind] += 1
            counts.in_flight += 1
            counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
            counts.samples.append((time.monotonic() - self._begun, counts.in_flight))
        try:
            yield times
        finally:
            with self._lock:
                self.counts.in_flight -= 1

    def note_fault(self, kind: str) -> None:
        """Count a fault."""
        with self._lock:
            self.counts.faults[kind] += 1

    def note_reply(self, kind: str, body: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count a reply."""
        with self._lock:
            self.counts.tokens[kind] += prompt_tokens + completion_tokens
            self.counts.answered[body] += 1
            self.counts.prompt_tokens += prompt_tokens
            self.counts.completion_tokens += completion_tokens

    def answer(self, request: Request) -> Reply:
        """The true answer, spoilt if mischief is drawn."""
        with self._computing:
            reply = self._model.answer(request)
        text = spoilt(self, request, reply.text)
        return Reply(text, prompt_tokens=reply.prompt_tokens, completion_tokens=count_tokens(text))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients are killed in tests."""


class _Handler(BaseHTTPRequestHandler):
    owner: ModelServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_POST(self) -> None:
        """A chat completion."""
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.owner.is_down:
            return self._send(503, {"error": {"message": "down"}})
        body = json.loads(raw)
        name = digest(body)
        request = read_request(body)
        with self.owner.at_work(request.kind, name) as times:
            if self.owner.latency_seconds:
                time.sleep(self.owner.latency_seconds)
            fault = next((kind for kind in TRANSPORT if self.owner.drawn(kind, name, times)), None)
            if fault is not None:
                self.owner.note_fault(fault)
                return self._fail(fault)
            try:
                reply = self.owner.answer(request)
            except ItemFault as refused:
                return self._send(400, {"error": {"message": str(refused)}})
            reply = self._with_content_fault(reply, request, name)
            self.owner.note_reply(request.kind, name, reply.prompt_tokens, reply.completion_tokens)
            return self._send(200, completion(body["model"], reply))

    def _fail(self, fault: str) -> None:
        if fault == "429":
            return self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.02"})
        if fault in ("500", "503"):
            return self._send(int(fault), {"error": {"message": "broken"}})
        if fault == "html":
            return self._send_bytes(200, b"<html><body>Bad gateway</body></html>", "text/html")
        if fault == "empty object":
            return self._send(200, {})
        if fault == "no choices":
            return self._send(200, completion("x", Reply("")) | {"choices": []})
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        self.close_connection = True  # "drop", and "slow": the client has gone
        return None

    def _with_content_fault(self, reply: Reply, request: Request, name: str) -> Reply:
        fault = next((kind for kind in CONTENT if self.owner.drawn(kind, name)), None)
        if fault is None:
            return reply
        text = reply.text
        changed = {
            "not json": lambda: Reply(text[: 2 * len(text) // 3]),
            "fenced": lambda: Reply(f"{_FENCE}json\n{text}\n{_FENCE}"),
            "prose": lambda: Reply(f"Here is what you asked for:\n{text}\nI hope this helps."),
            "missing key": lambda: Reply(_with_keys(text, lambda found: dict(list(found.items())[1:]))),
            "other keys": lambda: Reply(_with_keys(text, lambda found: {k.title(): v for k, v in found.items()})),
            "extra key": lambda: Reply(_with_keys(text, lambda found: {**found, "notes": "none"})),
            "wrong counts": lambda: Reply(_with_wrong_counts(text)),
            "cut": lambda: Reply(text[: len(text) // 2], finish="length"),
            "blanks": lambda: Reply(" \n" * 40, finish="length"),
            "refusal": lambda: Reply("", refusal="I cannot help with that."),
            "filter": lambda: Reply("", finish="content_filter"),
            "schema ignored": lambda: Reply("The video shows a party in a cave."),
        }[fault]()
        if changed.text == text:
            return reply  # the kind of request has no counts
        self.owner.note_fault(fault)
        return Reply(changed.text, changed.finish, changed.refusal, reply.prompt_tokens, count_tokens(changed.text))

    def _send(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(body).encode(), "application/json", headers)

    def _send_bytes(self, status: int, data: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def completion(model: str, reply: Reply) -> dict[str, Any]:
    """A reply as the protocol has it."""
    message = {"role": "assistant", "content": reply.text or None, "refusal": reply.refusal}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


def read_request(body: dict[str, Any]) -> Request:
    """What a client has sent. The time of a picture is the last one that the text before it names."""
    system, user = (message["content"] for message in body["messages"])
    parts: list[str | Picture] = []
    for part in [{"type": "text", "text": user}] if isinstance(user, str) else user:
        if part["type"] == "text":
            parts.append(part["text"])
        elif part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            width, height = Image.open(io.BytesIO(data)).size
            said = _TIME.findall(str(parts[-1])) if parts else []
            parts.append(Picture(data, read_time(said[-1]) if said else 0.0, width, height))
        else:
            text = next(other["text"] for other in user if other["type"] == "text")
            start = _TIME.findall(text)[0]
            parts += frames_of(base64.b64decode(part["video_url"]["url"].partition(",")[2]), read_time(start))
    kind = body["response_format"]["json_schema"]["name"]
    return Request(kind, system, tuple(parts), BaseModel, body["max_tokens"], body["temperature"], body["seed"])


def frames_of(data: bytes, start_seconds: float) -> list[Picture]:
    """The frames of a clip's file."""
    found = []
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(video=0):
            buffer = io.BytesIO()
            frame.to_image().save(buffer, "JPEG", quality=95)
            found.append(Picture(buffer.getvalue(), start_seconds + round(frame.time, 3), frame.width, frame.height))
    return found


def _with_keys(text: str, change: Any) -> str:
    return json.dumps(change(json.loads(text)))


def _with_wrong_counts(text: str) -> str:
    """Questions with two wrong options in place of three, or no event; other answers stay."""
    found = json.loads(text)
    for question in found.get("questions", ()):
        if "wrong_options" in question:
            question["wrong_options"] = question["wrong_options"][:2]
    if "events" in found:
        found["events"] = []
    return json.dumps(found)


def main() -> None:
    """Serve, and write the counts into a file whenever a line comes on standard input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, help="folder of MarathonWorld's videos")
    parser.add_argument("--faults", default="{}", help="JSON: kind -> share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency-seconds", type=float, default=0.0)
    given = parser.parse_args()
    scripts = scripts_of(video.path for video in find_videos([given.videos]))
    with ModelServer(
        scripts, faults=json.loads(given.faults), seed=given.seed, latency_seconds=given.latency_seconds
    ) as server:
        print(server.address, flush=True)
        for _ in sys.stdin:
            print(json.dumps(server.counts.plain()), flush=True)


if __name__ == "__main__":
    main()
