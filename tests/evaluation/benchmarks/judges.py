"""A judge's server for tests: an OpenAI-compatible one in this process, with replies that the test chooses."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JudgeServer:
    """What was asked, and how to answer: `reply(prompt)` gives the text, a status, or any JSON value."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[str], Any] = lambda prompt: "Correct"


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    """A server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.requests.append(body)
            found.headers.append(dict(self.headers))
            answer = found.reply(body["messages"][-1]["content"])
            status = answer if isinstance(answer, int) else 200
            whole = {"choices": [{"message": {"content": answer}}], "usage": {"total_tokens": 1}}
            value = whole if isinstance(answer, str) else answer
            content = json.dumps(value).encode()
            self.send_response(status if self.path == "/v1/chat/completions" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # a full queue costs a caller a second

    server = Server(("127.0.0.1", 0), Handler)
    found = JudgeServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
