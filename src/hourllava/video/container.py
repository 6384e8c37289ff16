"""Opening a file or an address with FFmpeg, choosing its main video stream, and saying why a file is refused."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from hourllava.errors import VideoError
from hourllava.video.address import TIMEOUT_SECONDS
from hourllava.video.formats import why_refused
from hourllava.video.picture import MAX_PICTURE_PIXELS, check_size
from hourllava.video.refusal import lacks_mp4_index
from hourllava.video.source import Source, SourceKind


def open_container(source: Source) -> InputContainer:
    """Open a source with FFmpeg, restricted to the formats and protocols of the source.

    Raises:
        VideoError: FFmpeg cannot open it.
    """
    timeout = (TIMEOUT_SECONDS, TIMEOUT_SECONDS) if source.kind is SourceKind.URL else None
    options = {
        "protocol_whitelist": source.protocols,
        "format_whitelist": source.formats,
        "pattern_type": "none",  # a picture's name is read as it is: "p%d.png" is one file
        "enable_drefs": "0",  # QuickTime reference movies keep their pictures in other files
        "max_pixels": str(MAX_PICTURE_PIXELS),
    }
    # FFmpeg names the format of a refused file in its log only.
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture():
            # Titles in another encoding than UTF-8 are common and no reason to refuse a video.
            return av.open(source.ffmpeg_url, options=options, timeout=timeout, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = _why_not_opened(source, error)
        raise VideoError(f"{source.location} cannot be opened: {reason}") from error
    finally:
        av.logging.set_level(None)


def _why_not_opened(source: Source, error: Exception) -> str:
    _, format_name, text = getattr(error, "log", None) or (0, "", "")
    if text.startswith("Format not on whitelist"):
        return why_refused(format_name)
    if source.kind is SourceKind.FILE and lacks_mp4_index(Path(source.location)):
        reason = "its index (the moov box) is missing: it was cut short or is still being written"
    elif isinstance(error, av.InvalidDataError):
        reason = "it is no video in a format FFmpeg reads"
    else:
        reason = getattr(error, "strerror", None) or type(error).__name__  # its text may quote a password
    return f"{reason}; give a complete video file"


def main_video_stream(container: InputContainer, source: Source) -> VideoStream:
    """The video stream that a player would show, ready to be decoded; all other streams are discarded.

    Raises:
        VideoError: no video stream, no decoder for it, or pictures that are too large.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        covers = container.streams.video
        kinds = ", ".join(sorted({stream.type for stream in container.streams if stream not in covers})) or "nothing"
        kinds += " and a cover picture" if covers else ""
        container.close()
        raise VideoError(f"{source.location} has no video stream, only {kinds}: give a file with pictures")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    codec = stream.codec_context
    if codec is None:
        raise VideoError(f"{source.location}: this FFmpeg has no decoder for its video: convert it to H.264")
    if stream.time_base is None:
        raise VideoError(f"{source.location}: its video stream has no time base: convert it to mp4 or mkv")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    check_size(codec.width, codec.height, source.location)
    codec.options = {"max_pixels": str(MAX_PICTURE_PIXELS)}
    codec.thread_count = 1  # threads gained nothing here and can deadlock beside PyTorch (PyAV#1962)
    return stream
