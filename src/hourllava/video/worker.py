"""The child process that decodes: reads a request from stdin, writes pictures to stdout, ends when stdin closes.

A child can be killed when FFmpeg hangs or crashes; a thread cannot. It is started as a plain command rather than by
`multiprocessing`, which would run the caller's main module again, and it never imports torch: it starts in 0.2 s.

Message, both ways: 4 bytes of length, that many bytes of JSON, and behind it `num_bytes` raw bytes if it names some.
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
from pathlib import Path
from typing import Any, BinaryIO

from hourllava.errors import HourLlavaError
from hourllava.openers import load_opener
from hourllava.video.demuxer import Demuxer
from hourllava.video.drawn import DrawnVideo
from hourllava.video.folder import FrameFolder
from hourllava.video.picture import Painter, PictureArray
from hourllava.video.sampled import SampledVideo
from hourllava.video.source import Source, SourceKind
from hourllava.video.still import PictureFile, is_picture_file
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import Gap

AHEAD_BYTES = 64 << 20  # pictures a child may hold while the parent is busy with another child's
ALIVE_SECONDS = 0.5
PICTURES_SEGMENT_SAMPLES = 32


def write_message(file: BinaryIO, message: dict[str, Any], payload: memoryview | None = None) -> None:
    """Send one message."""
    text = json.dumps(message).encode()
    file.write(len(text).to_bytes(4) + text)
    if payload is not None:
        file.write(payload)
    file.flush()


class _Outbox:
    """Messages on their way to the parent, written by a thread, bounded in bytes."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._messages: queue.SimpleQueue[tuple[dict[str, Any], memoryview | None] | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._held_bytes = 0
        self._last_sent_seconds = 0.0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def send(self, message: dict[str, Any], payload: memoryview | None = None) -> None:
        """Queue a message; waits while the parent is too far behind."""
        num_bytes = payload.nbytes if payload is not None else 0
        with self._room:
            self._room.wait_for(lambda: self._held_bytes == 0 or self._held_bytes + num_bytes <= AHEAD_BYTES)
            self._held_bytes += num_bytes
        self._last_sent_seconds = time.monotonic()
        self._messages.put((message, payload))

    def send_sample(self, sample_seconds: float, seconds: float, picture: PictureArray | None) -> None:
        """Queue a sample; None repeats the picture of the one before."""
        message = {"type": "frame", "sample_seconds": sample_seconds, "seconds": seconds}
        if picture is None:
            self.send(message)
        else:
            self.send({**message, "num_bytes": picture.nbytes}, picture.data.cast("B"))

    def alive(self) -> None:
        """Tell the parent from time to time that packets are being read."""
        if time.monotonic() - self._last_sent_seconds > ALIVE_SECONDS:
            self.send({"type": "alive"})

    def close(self) -> None:
        """Wait until all is written."""
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
    stdin = sys.stdin.buffer
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may come between the messages
    outbox = _Outbox(stdout)
    request = json.loads(stdin.readline())
    try:
        _serve(request, stdin, outbox)
    except HourLlavaError as error:
        outbox.send({"type": "error", "message": str(error)})
    except Exception as error:  # noqa: BLE001 - the process's border: nobody else can tell the parent
        outbox.send({"type": "error", "message": _unforeseen(error, request["source"]["location"])})
    outbox.close()
    os._exit(0)  # not by the interpreter's end, which would wait for the thread that reads stdin


def _unforeseen(error: Exception, location: str) -> str:
    """One line for an exception that no rule of ours foresees."""
    if isinstance(error, MemoryError):
        return (
            f"{location}: memory ran out while it was decoded: free some, lower num_processes, or scale the video down"
        )
    text = " ".join(str(error).split())
    return f"{location}: decoding failed ({type(error).__name__}: {text}): convert the file to mp4 and retry"


def _serve(request: dict[str, Any], stdin: BinaryIO, outbox: _Outbox) -> None:
    plan: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(stdin, plan), daemon=True).start()
    source = Source.from_message(request["source"])
    grid = SampleGrid.of(request["fps"], request["start_seconds"], request["end_seconds"])
    size_pixels = tuple(request["size_pixels"]) if request["size_pixels"] else None
    if source.kind is SourceKind.FOLDER:
        _serve_pictures(FrameFolder(source, request["folder_fps"]), grid, size_pixels, plan, outbox)
        return
    if source.kind is SourceKind.DRAWN:
        _serve_pictures(load_opener(source.opener)(source, float(grid.fps)), grid, size_pixels, plan, outbox)
        return
    if source.kind is SourceKind.FILE and is_picture_file(Path(source.location)):
        _serve_pictures(PictureFile(source), grid, size_pixels, plan, outbox)
        return
    video = Demuxer(source, outbox.alive, request.get("steady_end_pts"))
    samples = SampledVideo(video, grid)
    outbox.send(
        {
            "type": "info",
            "info": asdict(samples.info),
            "num_segments": samples.num_segments,
            "steady_end_pts": video.end_pts if video.can_seek else None,
        }
    )
    part = plan.get()
    height, width = size_pixels or (video.info.height_pixels, video.info.width_pixels)
    painter = Painter(width, height, video.crop)
    for segment in range(part["first"], samples.num_segments, part["step"]):
        last_frame = None
        for item in samples.segment(segment):
            if isinstance(item, Gap):
                outbox.send({"type": "gap", "gap": item._asdict()})
                continue
            picture = painter.paint(item.frame) if item.frame is not last_frame else None
            last_frame = item.frame
            outbox.send_sample(grid.seconds(item.sample), item.seconds, picture)
        # Pictures lie in reference cycles, which the collector would let grow to 480 MB at 1080p instead of 300.
        gc.collect()
        outbox.send({"type": "segment"})


def _serve_pictures(
    video: DrawnVideo,
    grid: SampleGrid,
    size_pixels: tuple[int, int] | None,
    plan: queue.SimpleQueue[dict[str, Any]],
    outbox: _Outbox,
) -> None:
    samples = video.samples(grid)
    segments = [samples[i : i + PICTURES_SEGMENT_SAMPLES] for i in range(0, len(samples), PICTURES_SEGMENT_SAMPLES)]
    outbox.send({"type": "info", "info": asdict(video.info), "num_segments": len(segments)})
    part = plan.get()
    for segment in segments[part["first"] :: part["step"]]:
        last_index = None
        for sample in segment:
            index = video.frame_index(grid, sample)
            picture = video.read(index, size_pixels) if index != last_index else None
            last_index = index
            outbox.send_sample(grid.seconds(sample), video.seconds(index), picture)
        outbox.send({"type": "segment"})


def _listen(stdin: BinaryIO, plan: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass the parent's plan on; when the parent is gone, however it went, go too."""
    for line in stdin:
        plan.put(json.loads(line))
    os._exit(0)
