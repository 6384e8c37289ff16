"""One opened video stream: packets past damage, where its keyframes and its end are, and what it is.

`container.decode()` and `container.demux()` stop at the first damaged packet; here demuxing is taken up again behind it
and decoding is per packet, so that damage costs its neighbourhood only. All of it runs in a child process (worker.py).

A file without an index may hold several recordings, joined: its clock restarts. Only reading all packets can tell, so
that is done once, before anything is decoded: 0.3 s (Matroska) to 0.5 s (MPEG-TS) of an hour whose decoding
takes 64 s. A file with such a clock is then read from its start by one process.
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
from hourllava.video.layout import NO_CROP, cropping, is_cut_short, is_encrypted
from hourllava.video.picture import MAX_PICTURE_PIXELS, check_size, orientation, transfer_name
from hourllava.video.refusal import lacks_mp4_index, why_no_picture
from hourllava.video.source import URL_TIMEOUT_SECONDS, Source, SourceKind
from hourllava.video.timeline import Clock, ClockMap, Jump
from hourllava.video.types import VideoInfo

# Codecs whose keyframes begin decoding afresh. Others (gif, apng, screen codecs) are read from their start.
RANDOM_ACCESS_CODECS = {
    *("av1", "libdav1d", "h264", "hevc", "vp8", "vp9", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "theora"),
    *("mjpeg", "png", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "v210", "jpeg2000", "rawvideo"),
}
MAX_DAMAGED_READS = 64  # in a row; then the rest is taken for lost
DEFAULT_FPS = Fraction(25)  # for raw streams that name no rate, as FFmpeg assumes
FAR_FUTURE_SECONDS = 10**7
# Their clocks are made to jump (FFmpeg's AVFMT_TS_DISCONT, and its threshold), and they have decoding times. In other
# containers a hole is a pause, of up to an hour.
JUMPING_CONTAINERS = frozenset({"mpeg", "mpegts"})
JUMP_SECONDS, MAX_HOLE_SECONDS = 10, 3600
SLOW_PACKETS = 8  # a clock that jumps forward more often than at every eighth picture does not jump: pictures are rare


class Demuxer:
    """The main video stream of a file, address or named pipe.

    Args:
        source: What to open.
        heartbeat: Called for every packet, to show that the process is alive.
        steady_end_pts: What another process found: the clock is steady, and this is `end_pts`. None: find out.

    Attributes:
        end_pts: Timestamp at which the last frame's display ends; None where only reading on can tell.

    Raises:
        VideoError: the source is no video, or holds no picture that can be decoded.
    """

    def __init__(self, source: Source, heartbeat: Callable[[], None], steady_end_pts: int | None = None):
        self.source = source
        self._heartbeat = heartbeat
        self.damaged_reads = 0
        self._landings: dict[int, int] = {}  # keyframe: a time to seek to that comes out before it
        self._clock_map: ClockMap | None = None
        self._corrections: dict[int, int] = {}  # by packet, of times beside a jump of the clock
        self._slots: list[int] = []  # AVI: the times of its packets, empty ones left out
        self._delay_packets = 0  # how many packets the decoder takes before it gives the first picture
        self.timestamps_derived = False
        self._is_slow = False  # whether many seconds between pictures are its rhythm
        self._is_single = False  # whether it has one picture only
        self._open()
        self.first_frames: list[VideoFrame] = []  # already decoded, for sources that cannot be read twice
        self.clock, self.info = self._probe()
        self.is_steady = True  # until a scan finds otherwise
        self.end_pts: int | None = None
        if steady_end_pts is not None:
            self._clock_map, self.end_pts = None, steady_end_pts
        elif self.source.kind is SourceKind.FILE:
            self._find_end()

    def _open(self) -> None:
        self.container = _open_container(self.source)
        self.stream = _main_video_stream(self.container, self.source)
        self.codec = self.stream.codec_context
        self.codec.options = {"max_pixels": str(MAX_PICTURE_PIXELS)}
        check_size(self.codec.width, self.codec.height, self.source.location)
        self.codec.thread_count = 1  # threads gained nothing here and can deadlock beside PyTorch (PyAV#1962)
        if self.stream.time_base is None:
            raise VideoError(f"{self.source.location}: its video stream has no time base: convert it to mp4 or mkv")
        self.time_base: Fraction = self.stream.time_base
        self._has_dts = self.container.format.name in JUMPING_CONTAINERS
        hole_seconds = JUMP_SECONDS if self._has_dts and not self._is_slow else MAX_HOLE_SECONDS
        ends_by_dts = self.codec.name in ("mpeg1video", "mpeg2video")
        # None where packets come in any order: then nothing can be told from their order.
        self._clock_map = ClockMap(self.time_base, self.frame_ticks, hole_seconds, ends_by_dts)

    @property
    def can_seek(self) -> bool:
        """Whether segments of it can be decoded on their own."""
        is_file = self.source.kind is SourceKind.FILE and self.is_steady
        return is_file and not self.timestamps_derived and self.codec.name in RANDOM_ACCESS_CODECS

    @property
    def jumps(self) -> list[Jump]:
        """Where the file's clock restarted or jumped, in what was read."""
        return self._clock_map.jumps if self._clock_map is not None else []

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets of the stream from the present position to the end, in decoding order, past damage."""
        failures = 0
        while failures < MAX_DAMAGED_READS:
            try:
                for packet in self.container.demux(self.stream):
                    self._heartbeat()
                    if packet.size:
                        failures = 0
                        if self._clock_map is not None:
                            self._place(packet, self._clock_map)
                        yield packet
                return
            except IndexError:  # PyAV's, for a packet of a stream that appeared after opening: that packet is not ours
                self._heartbeat()
            except (av.FFmpegError, OSError):  # PyAV turns some codes (EIO) into plain OSErrors
                failures += 1
                self.damaged_reads += 1

    def _place(self, packet: Packet[VideoStream], clock_map: ClockMap) -> None:
        """Carry a packet's timestamps over the jumps of the file's clock."""
        if packet.is_discard:
            return
        clock_map.add(packet.pts, packet.dts if self._has_dts else None, packet.duration, packet.is_keyframe)
        correction = self._corrections.get(clock_map.num_packets - 1)
        if correction is not None:
            packet.pts = correction
        elif clock_map.offset_ticks and packet.pts is not None:
            packet.pts += clock_map.offset_ticks
        if clock_map.offset_ticks and packet.dts is not None:
            packet.dts += clock_map.offset_ticks

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
        if not self.seek(self._begin_dts - round(10 / self.time_base)):
            self._reopen()
            self._clock_map = None

    def _reopen(self) -> None:
        self.container.close()
        self._open()
        if self.timestamps_derived:
            self._clock_map = None

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

    def promised_end_pts(self, end_pts: int) -> int | None:
        """Where a video that ends at `end_pts` should end, if its file was cut short; None if it was not.

        An mp4's index names its last packet. Other containers say how many bytes they have; how long the video is by
        their header is believed only if bytes are missing, because headers lie about time.
        """
        if self._is_mp4:
            entries = self.stream.index_entries
            last_pts = entries[len(entries) - 1].timestamp if len(entries) else end_pts
            if last_pts > end_pts:
                return last_pts
        if self.source.kind is not SourceKind.FILE or not is_cut_short(Path(self.source.location)):
            return None
        duration = self.info.duration_seconds or 0
        return max(end_pts + self.frame_ticks, self.clock.origin_pts + round(duration / self.time_base))

    @property
    def _is_mp4(self) -> bool:
        return self.container.format.name.startswith("mov,")

    def _find_end(self) -> None:
        """Find where the video ends, and whether its clock is steady."""
        is_avi = self.container.format.name == "avi"
        if self.timestamps_derived and not is_avi:
            return
        if self.can_seek and (is_avi or self._is_mp4):
            self._clock_map = None
            self.end_pts = self._tail_end()
        else:
            self._scan()
        frame_end_pts = self.clock.origin_pts + self.frame_ticks
        if self._is_single and self.container.duration and self.container.streams.audio:
            # A still with sound: players show it as long as the sound lasts.
            end_seconds = Fraction(self.container.duration, av.time_base)
            self.end_pts = max(
                self.end_pts or frame_end_pts, self.clock.origin_pts + round(end_seconds / self.time_base)
            )

    def _scan(self) -> None:
        """Read all packets: the end, and for AVI the slots of its pictures; begin again if the clock is not steady."""
        self._reopen()
        clock_map = self._clock_map
        slots_end = num_packets = 0
        for num_packets, packet in enumerate(self.packets(), 1):  # noqa: B007 - its last value counts
            if self.timestamps_derived and packet.dts is not None:
                self._slots.append(packet.dts)
                slots_end = packet.dts + (packet.duration or 1)
        num_forward = sum(jump.ticks > 0 for jump in self.jumps)
        if num_forward * SLOW_PACKETS > num_packets and not self._is_slow:
            self._is_slow = True
            self._scan()
            return
        self._is_single = num_packets == 1
        if self._slots:
            last_pts = self.derived_pts(len(self._slots) - 1)
            self.end_pts = max(self.clock.origin_pts + slots_end - self._slots[0], last_pts + self.frame_ticks)
        elif clock_map is not None:
            self.end_pts = clock_map.end_pts
            self._corrections = clock_map.corrections
            self.is_steady = not clock_map.jumps
        if self.end_pts is not None and self.end_pts <= self.clock.origin_pts:
            self.end_pts = None
        if not self.can_seek:
            self._reopen()
            self.first_frames = []
        else:
            self._clock_map = None

    def derived_pts(self, number: int) -> int:
        """Timestamp of the picture shown as the `number`-th, in a file that does not say it.

        An AVI gives every packet a slot in decoding order, and empty packets hold the picture. So the pictures, in the
        order in which they are shown, have the slots of the packets that bring them out of the decoder.
        """
        if not self._slots:
            return self.clock.origin_pts + round(number / self.frame_rate / self.time_base)
        delay = min(self._delay_packets, len(self._slots) - 1)
        beyond = max(0, number + delay - len(self._slots) + 1)  # brought out by the end: in the rhythm of the last ones
        rhythm = self._slots[-1] - self._slots[-2] if len(self._slots) > 1 else self.frame_ticks
        slot = self._slots[number + delay - beyond] + beyond * rhythm
        return self.clock.origin_pts + slot - self._slots[delay]

    def _tail_end(self) -> int | None:
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
                self._is_single = last == self.clock.origin_pts
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
        # Encrypted pictures may decode to noise. In MPEG-TS the sound alone may be encrypted, so there pictures decide.
        path = Path(self.source.location)
        can_tell = self.source.kind is SourceKind.FILE and self.container.format.name != "mpegts"
        if can_tell and is_encrypted(path):
            raise VideoError(f"{path} is encrypted; give a file without protection")
        earliest: int | None = None
        is_damaged = False
        begin_dts = None
        for number, packet in enumerate(self.packets()):
            if begin_dts is None:
                begin_dts = packet.dts
            if packet.pts is not None and not packet.is_discard and (earliest is None or packet.pts < earliest):
                earliest = packet.pts
            try:
                self.first_frames = self.decode(packet)
            except MemoryError:  # FFmpeg's is an FFmpegError too
                raise
            except av.FFmpegError:
                is_damaged = True
            if self.first_frames:
                self._delay_packets = number
                break
        else:
            self.first_frames = self.decode(None)
        if not self.first_frames:
            raise VideoError(
                f"{self.source.location} holds no picture that can be decoded: {why_no_picture(self.source)}"
            )
        frame = self.first_frames[0]
        first_pts = frame.pts if frame.pts is not None else frame.dts
        # AVI has no presentation times. FFmpeg makes them from the packets' order: wrong where frames are reordered.
        can_reorder = self.codec.name in ("h264", "hevc") or self.codec.has_b_frames
        if self.container.format.name == "avi" and can_reorder:
            first_pts = None
        self.timestamps_derived = first_pts is None
        if self.timestamps_derived:
            self._clock_map = None
        origin = first_pts or 0
        if is_damaged and earliest is not None:
            origin = min(origin, earliest)  # what damage took from the beginning still counts as time
        self._begin_dts = min(origin, begin_dts if begin_dts is not None else origin)
        clock = Clock(self.time_base, origin)
        return clock, self._describe(frame, clock)

    def _describe(self, frame: VideoFrame, clock: Clock) -> VideoInfo:
        (swap, _, _), angle = orientation(frame)
        aspect = self.stream.sample_aspect_ratio
        if not aspect or aspect < 0:
            aspect = Fraction(1)
        self.crop = cropping(Path(self.source.location)) if self.source.kind is SourceKind.FILE else NO_CROP
        width = frame.width - self.crop.left - self.crop.right
        height = frame.height - self.crop.top - self.crop.bottom
        if width < 1 or height < 1:
            self.crop, width, height = NO_CROP, frame.width, frame.height
        if aspect > 1:  # pixels are stretched, never squeezed: no detail is lost
            width = round(width * aspect)
        else:
            height = round(height / aspect)
        check_size(width, height, self.source.location)
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
        "max_pixels": str(MAX_PICTURE_PIXELS),
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
    if source.kind is SourceKind.FILE and lacks_mp4_index(Path(source.location)):
        reason = "its index (the moov box) is missing: it was cut short or is still being written"
    elif isinstance(error, av.InvalidDataError):
        reason = "it is no video in a format FFmpeg reads"
    else:
        reason = getattr(error, "strerror", None) or type(error).__name__  # its text may quote a password
    return f"{reason}; give a complete video file"


def _main_video_stream(container: InputContainer, source: Source) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        covers = container.streams.video
        kinds = ", ".join(sorted({stream.type for stream in container.streams if stream not in covers})) or "nothing"
        kinds += " and a cover picture" if covers else ""
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
