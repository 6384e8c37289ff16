"""One opened video stream: packets past damage, where its keyframes and its end are, and what it is.

`container.decode()` and `container.demux()` stop at the first damaged packet; here demuxing is taken up again behind it
and decoding is per packet, so that damage costs its neighbourhood only. All of it runs in a child process (worker.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hourllava.errors import VideoError
from hourllava.video.formats import why_refused
from hourllava.video.picture import orientation, transfer_name
from hourllava.video.source import URL_TIMEOUT_SECONDS, Source, SourceKind
from hourllava.video.timeline import Clock
from hourllava.video.types import VideoInfo

# Codecs whose keyframes begin decoding afresh. Others (gif, apng, screen codecs) are read from their start.
RANDOM_ACCESS_CODECS = {
    *("av1", "libdav1d", "h264", "hevc", "vp8", "vp9", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "theora"),
    *("mjpeg", "png", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "v210", "jpeg2000", "rawvideo"),
}
MAX_DAMAGED_READS = 64  # in a row; then the rest is taken for lost
DEFAULT_FPS = Fraction(25)  # for raw streams that name no rate, as FFmpeg assumes
FAR_FUTURE_SECONDS = 10**7


class Demuxer:
    """The main video stream of a file, address or named pipe.

    Args:
        source: What to open.
        heartbeat: Called for every packet, to show that the process is alive.

    Raises:
        VideoError: the source is no video, or holds no picture that can be decoded.
    """

    def __init__(self, source: Source, heartbeat: Callable[[], None]):
        self.source = source
        self._heartbeat = heartbeat
        self.damaged_reads = 0
        self._landings: dict[int, int] = {}  # keyframe: a time to seek to that comes out before it
        self._open()
        self.first_frames: list[VideoFrame] = []  # already decoded, for sources that cannot be read twice
        self.clock, self.info = self._probe()
        # Timestamp at which the last frame's display ends; None where only reading on can tell.
        self.end_pts = self._find_end() if self.can_seek else None

    def _open(self) -> None:
        self.container = _open_container(self.source)
        self.stream = _main_video_stream(self.container, self.source)
        self.codec = self.stream.codec_context
        self.codec.thread_count = 1  # threads gained nothing here and can deadlock beside PyTorch (PyAV#1962)
        if self.stream.time_base is None:
            raise VideoError(f"{self.source.location}: its video stream has no time base: convert it to mp4 or mkv")
        self.time_base: Fraction = self.stream.time_base

    @property
    def can_seek(self) -> bool:
        """Whether segments of it can be decoded on their own."""
        is_file = self.source.kind is SourceKind.FILE
        return is_file and not self.timestamps_derived and self.codec.name in RANDOM_ACCESS_CODECS

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets of the stream from the present position to the end, in decoding order, past damage."""
        failures = 0
        while failures < MAX_DAMAGED_READS:
            try:
                for packet in self.container.demux(self.stream):
                    self._heartbeat()
                    if packet.size:
                        failures = 0
                        yield packet
                return
            except (av.FFmpegError, OSError):  # PyAV turns some codes (EIO) into plain OSErrors
                failures += 1
                self.damaged_reads += 1

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Frames that a packet brings out of the decoder; None brings out the rest and resets the decoder.

        Raises:
            av.FFmpegError: the packet is damaged.
        """
        try:
            return self.codec.decode(packet)
        finally:
            if packet is None:
                self.codec.flush_buffers()

    def seek(self, pts: int) -> bool:
        """Move to about the last keyframe at or before a timestamp; False where the container cannot."""
        try:
            self.container.seek(pts, stream=self.stream, backward=True)
        except (av.FFmpegError, OSError, OverflowError):
            return False
        self.codec.flush_buffers()
        return True

    def seek_keyframe(self, pts: int) -> None:
        """Move to or before a keyframe that `keyframe_before` gave: MPEG-TS may land behind the time asked for."""
        if pts <= self.clock.origin_pts or not self.seek(self._landings[pts]):
            self.seek_start()

    def seek_start(self) -> None:
        """Move to the first packet, by opening the file again where seeking fails."""
        if not self.seek(self.clock.origin_pts - round(10 / self.time_base)):
            self.container.close()
            self._open()

    def keyframe_before(self, pts: int) -> int:
        """Timestamp of the last keyframe at or before `pts`; the start of the video if there is none.

        Seeking lands roughly (Matroska's cues are sparse, MPEG-TS has none), so the packets between the landing and
        `pts` are looked at: the answer is a property of the file, the same for every process that asks. Only an mp4's
        index is complete.
        """
        target, step = pts, round(2 / self.time_base)
        while target > self.clock.origin_pts and self.seek(target):
            found = None
            for packet in self.packets():
                if packet.pts is not None and packet.is_keyframe and not packet.is_discard and packet.pts <= pts:
                    found = packet.pts
                    if target == pts and self.container.format.name.startswith("mov,"):
                        break
                order = packet.dts if packet.dts is not None else packet.pts
                if order is not None and order > pts:
                    break
            if found is not None:
                self._landings[found] = target
                return found
            target, step = target - step, step * 4
        return self.clock.origin_pts

    @property
    def indexed_end_pts(self) -> int | None:
        """Time of the last packet that an mp4's index promises; None for other containers."""
        entries = self.stream.index_entries
        if not self.container.format.name.startswith("mov,") or not len(entries):
            return None
        return entries[len(entries) - 1].timestamp

    def _find_end(self) -> int | None:
        """Read the tail for the end of the last frame's display; headers lie, and a growing file's is out of date."""
        header_end = (self.stream.start_time or 0) + (self.stream.duration or 0)
        for target in (self.clock.origin_pts + round(FAR_FUTURE_SECONDS / self.time_base), header_end, None):
            if target is None:
                self.seek_start()
            elif not self.seek(target):
                continue
            end, last, previous = None, None, None
            for packet in self.packets():
                if packet.pts is None or packet.is_discard:
                    continue
                if last is None or packet.pts > last:
                    last, previous, duration = packet.pts, last, packet.duration
                    end = last + (duration or (last - previous if previous is not None else self.frame_ticks))
            if end is not None and end > self.clock.origin_pts:
                return end
        return None

    @property
    def frame_ticks(self) -> int:
        """Ticks that a frame lasts by the header's claim."""
        return max(1, round(1 / self.frame_rate / self.time_base))

    @property
    def frame_rate(self) -> Fraction:
        """The header's claim of frames per second, for frames that say neither their time nor how long they last."""
        return self.stream.average_rate or self.stream.guessed_rate or DEFAULT_FPS

    def _probe(self) -> tuple[Clock, VideoInfo]:
        earliest: int | None = None
        is_damaged = False
        for packet in self.packets():
            if packet.pts is not None and not packet.is_discard and (earliest is None or packet.pts < earliest):
                earliest = packet.pts
            try:
                self.first_frames = self.decode(packet)
            except av.FFmpegError:
                is_damaged = True
            if self.first_frames:
                break
        else:
            self.first_frames = self.decode(None)
        if not self.first_frames:
            raise VideoError(
                f"{self.source.location} holds no picture that can be decoded: it is damaged, get it again"
            )
        frame = self.first_frames[0]
        first_pts = frame.pts if frame.pts is not None else frame.dts
        # AVI has no presentation times. FFmpeg makes them from the packets' order: wrong where frames are reordered.
        is_reordered = self.codec.name in ("h264", "hevc") and self.container.format.name == "avi"
        self.timestamps_derived = first_pts is None or is_reordered
        origin = first_pts or 0
        if is_damaged and earliest is not None:
            origin = min(origin, earliest)  # what damage took from the beginning still counts as time
        clock = Clock(self.time_base, origin)
        return clock, self._describe(frame, clock)

    def _describe(self, frame: VideoFrame, clock: Clock) -> VideoInfo:
        (swap, _, _), angle = orientation(frame)
        aspect = self.stream.sample_aspect_ratio
        if not aspect or aspect < 0:
            aspect = Fraction(1)
        width, height = frame.width, frame.height
        if aspect > 1:  # pixels are stretched, never squeezed: no detail is lost
            width = round(width * aspect)
        else:
            height = round(height / aspect)
        duration = self.stream.duration * self.time_base if self.stream.duration else None
        if duration is None and self.container.duration:
            duration = Fraction(self.container.duration, av.time_base)
        rate = self.stream.average_rate or self.stream.guessed_rate
        start = clock.origin_pts * self.time_base
        begin = self.container.start_time
        player_start = start if begin is None else Fraction(begin, av.time_base)
        return VideoInfo(
            path=self.source.location,
            container=self.container.format.name,
            codec=self.stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            width_pixels=max(1, height if swap else width),
            height_pixels=max(1, width if swap else height),
            rotation_degrees=angle,
            sample_aspect_ratio=float(aspect),
            duration_seconds=float(duration) if duration and self.source.kind is not SourceKind.STREAM else None,
            average_fps=float(rate) if rate else None,
            start_seconds=float(start),
            player_offset_seconds=max(0.0, float(start - player_start)),
            transfer=transfer_name(frame.color_trc),
            timestamps_derived=self.timestamps_derived,
            is_live=self.source.kind is SourceKind.STREAM or (self.source.kind is SourceKind.URL and not duration),
        )


def _open_container(source: Source) -> InputContainer:
    timeout = (URL_TIMEOUT_SECONDS, URL_TIMEOUT_SECONDS) if source.kind is SourceKind.URL else None
    options = {
        "protocol_whitelist": source.protocols,
        "format_whitelist": source.formats,
        "pattern_type": "none",  # a picture's name is read as it is: "p%d.png" is one file
        "enable_drefs": "0",  # QuickTime reference movies keep their pictures in other files
    }
    # FFmpeg tells only its log which format it takes a file for.
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture():
            # Titles in another encoding than UTF-8 are common, and no reason to refuse a video.
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
    if source.kind is SourceKind.FILE and _lacks_mp4_index(Path(source.location)):
        reason = "its index (the moov box) is missing: it was cut short or is still being written"
    elif isinstance(error, av.InvalidDataError):
        reason = "it is no video in a format FFmpeg reads"
    else:
        reason = getattr(error, "strerror", None) or type(error).__name__  # its text may quote a password
    return f"{reason}; give a complete video file"


def _lacks_mp4_index(path: Path) -> bool:
    """Whether a file begins as mp4 or mov and has no moov box, walking its top-level boxes."""
    boxes: set[bytes] = set()
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            num_bytes = int.from_bytes(header[:4])
            boxes.add(header[4:8])
            if not boxes & {b"ftyp", b"mdat", b"wide", b"free", b"skip"}:
                return False
            if num_bytes == 1:
                num_bytes = int.from_bytes(header[8:16])
            if num_bytes < 8:  # 0: to the end of the file; else broken
                break
            file.seek(num_bytes - len(header), 1)
    return bool(boxes & {b"ftyp", b"mdat"}) and b"moov" not in boxes


def _main_video_stream(container: InputContainer, source: Source) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        container.close()
        raise VideoError(f"{source.location} has no video stream, only {kinds}: give a file with pictures")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{source.location}: this FFmpeg has no decoder for its video: convert it to H.264")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream
