"""The child process that decodes: reads a request from stdin, writes pictures to stdout, ends when stdin closes.

If FFmpeg hangs or crashes, a child can be killed; a thread cannot. The child is started as a plain command, because
`multiprocessing` would run the caller's main module again. It never imports torch, so it starts in 0.2 s.

A request is a line of JSON, and so is each segment that the parent wants. A message to the parent is 4 bytes of
length, that many bytes of JSON, and `num_bytes` raw bytes if the JSON has this field.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
import time
from dataclasses import asdict
from typing import Any, BinaryIO

from hourllava.errors import HourLlavaError
from hourllava.video.limits import limit_this_process
from hourllava.video.opened import SampledFrame, open_video
from hourllava.video.source import Source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import Gap

AHEAD_BYTES = 64 << 20  # how many bytes of pictures a child may hold while the parent reads from another child
ALIVE_SECONDS = 0.5


def write_message(file: BinaryIO, message: dict[str, Any], payload: memoryview | None = None) -> None:
    """Send one message."""
    text = json.dumps(message).encode()
    file.write(len(text).to_bytes(4) + text)
    if payload is not None:
        file.write(payload)
    file.flush()


class _Outbox:
    """A queue of messages for the parent, bounded in bytes; a thread writes them."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._messages: queue.SimpleQueue[tuple[dict[str, Any], memoryview | None] | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._held_bytes = 0
        self._last_sent_seconds = 0.0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def send(self, message: dict[str, Any], payload: memoryview | None = None) -> None:
        """Queue a message; waits while the queue is full."""
        num_bytes = payload.nbytes if payload is not None else 0
        with self._room:
            self._room.wait_for(lambda: self._held_bytes == 0 or self._held_bytes + num_bytes <= AHEAD_BYTES)
            self._held_bytes += num_bytes
        self._last_sent_seconds = time.monotonic()
        self._messages.put((message, payload))

    def send_sample(self, sample: SampledFrame) -> None:
        """Queue a sample; without a picture it repeats that of the sample before."""
        message = {"type": "frame", "sample_seconds": sample.sample_seconds, "seconds": sample.timestamp_seconds}
        if sample.picture is None:
            self.send(message)
        else:
            self.send({**message, "num_bytes": sample.picture.nbytes}, sample.picture.data.cast("B"))

    def alive(self) -> None:
        """Tell the parent, at most twice a second, that packets are being read."""
        if time.monotonic() - self._last_sent_seconds > ALIVE_SECONDS:
            self.send({"type": "alive"})

    def close(self) -> None:
        """Wait until all messages are written."""
        self._messages.put(None)
        self._thread.join()

    def _write(self) -> None:
        try:
            while (item := self._messages.get()) is not None:
                write_message(self._file, *item)
                if item[1] is not None:
                    with self._room:
                        self._held_bytes -= item[1].nbytes
                        self._room.notify()
        except OSError:  # the parent closed the pipe
            os._exit(0)


def main() -> None:
    """Serve one request."""
    gc.freeze()  # the collections below then look at frames only, not at everything that was imported
    stdin = sys.stdin.buffer
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to stderr, not between the messages
    outbox = _Outbox(stdout)
    request = json.loads(stdin.readline())
    try:
        _serve(request, stdin, outbox)
    except HourLlavaError as error:
        outbox.send({"type": "error", "message": str(error)})
    except Exception as error:  # noqa: BLE001 - the border of the process: the parent must hear of every error
        outbox.send({"type": "error", "message": _unforeseen(error, request["source"]["location"])})
    outbox.close()
    os._exit(0)  # a normal end would wait for the thread that reads stdin


def _unforeseen(error: Exception, location: str) -> str:
    """One line for an exception that is not ours."""
    if isinstance(error, MemoryError):
        return (
            f"{location}: memory ran out while it was decoded: free some, lower num_processes, or scale the video down"
        )
    text = " ".join(str(error).split())
    return f"{location}: decoding failed ({type(error).__name__}: {text}): convert the file to mp4 and retry"


def _serve(request: dict[str, Any], stdin: BinaryIO, outbox: _Outbox) -> None:
    if request.get("limits"):
        limit_this_process(request["limits"])
    plan: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(stdin, plan), daemon=True).start()
    source = Source.from_message(request["source"])
    video = open_video(
        source,
        SampleGrid.of(request["fps"], request["start_seconds"], request["end_seconds"]),
        tuple(request["size_pixels"]) if request["size_pixels"] else None,
        folder_fps=request["folder_fps"],
        heartbeat=outbox.alive,
        steady_end_pts=request.get("steady_end_pts"),
    )
    outbox.send(
        {
            "type": "info",
            "info": asdict(video.info),
            "num_segments": video.num_segments,
            "steady_end_pts": video.steady_end_pts,
        }
    )
    while True:  # until the parent ends this process
        for item in video.segment(plan.get()["segment"]):
            if isinstance(item, Gap):
                outbox.send({"type": "gap", "gap": item._asdict()})
            else:
                outbox.send_sample(item)
        # Frames lie in reference cycles. Without this, Python would let them grow to 480 MB at 1080p instead of 300.
        gc.collect()
        outbox.send({"type": "segment"})


def _listen(stdin: BinaryIO, plan: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass on the segments that the parent wants; end this process when the parent has ended, for whatever reason."""
    for line in stdin:
        plan.put(json.loads(line))
    os._exit(0)
