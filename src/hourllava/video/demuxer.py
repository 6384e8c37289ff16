"""One opened video stream: its packets past damage, its keyframes, and where it ends.

PyAV's `container.demux()` and `container.decode()` stop at the first damaged packet. Here demuxing continues behind it
and every packet is decoded alone, so damage costs only its neighbourhood.

A file without an index may hold several joined recordings, whose clock restarts at each. Only its packets can tell, so
all of them are read once before decoding: 0.3 s (Matroska) to 0.5 s (MPEG-TS) for an hour that takes 64 s to decode.
One process then reads a file with such a clock from its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hourllava.errors import VideoError
from hourllava.video.container import main_video_stream, open_container
from hourllava.video.description import describe
from hourllava.video.layout import is_cut_short, is_encrypted
from hourllava.video.refusal import why_no_picture
from hourllava.video.source import Source, SourceKind
from hourllava.video.timeline import Clock, ClockMap, Jump, Slots

# Decoding can begin at any keyframe of these codecs. Others (gif, apng, screen codecs) are read from their start.
RANDOM_ACCESS_CODECS = {
    *("av1", "libdav1d", "h264", "hevc", "vp8", "vp9", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "theora"),
    *("mjpeg", "png", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "v210", "jpeg2000", "rawvideo"),
}
MAX_DAMAGED_READS = 64  # in a row; after that the rest counts as lost
DEFAULT_FPS = Fraction(25)  # for raw streams that name no rate, as FFmpeg assumes
FAR_FUTURE_SECONDS = 10**7
# These containers allow clocks that jump (FFmpeg's AVFMT_TS_DISCONT, with FFmpeg's threshold) and have decoding times.
# In other containers a hole of up to an hour is a pause.
JUMPING_CONTAINERS = frozenset({"mpeg", "mpegts"})
JUMP_SECONDS, MAX_HOLE_SECONDS = 10, 3600
SLOW_PACKETS = 8  # if more than one picture in 8 comes after such a hole, the clock is right and pictures are rare


class Demuxer:
    """The main video stream of a file, address or named pipe.

    Args:
        source: What to open.
        heartbeat: Called for every packet, to show that the process is alive.
        steady_end_pts: `end_pts`, if another process has found it and that the clock is steady; None: find out.

    Attributes:
        damaged_reads: How many reads failed so far.
        first_frames: Frames decoded on opening, for sources that cannot be read twice.
        end_pts: Timestamp at which the display of the last frame ends; None if that is not known before the end.

    Raises:
        VideoError: the source is no video, or holds no picture that can be decoded.
    """

    def __init__(self, source: Source, heartbeat: Callable[[], None], steady_end_pts: int | None = None):
        self.source = source
        self._heartbeat = heartbeat
        self.damaged_reads = 0
        self._landings: dict[int, int] = {}  # keyframe -> a seek target known to land at or before it
        self._clock_map: ClockMap | None = None  # None once packets come in another order than the file's
        self._corrections: dict[int, int] = {}  # packet number -> its right time, beside a jump of the clock
        self._slots: Slots | None = None  # of an AVI
        self._delay_packets = 0  # packets that the decoder takes before it gives the first picture
        self.timestamps_derived = False
        self._is_slow = False  # many seconds between pictures are normal in this file
        self._is_single = False  # the file holds one picture
        self._open()
        self.first_frames: list[VideoFrame] = []
        self.clock = self._probe()
        self.info, self.crop = describe(
            source, self.container, self.stream, self.first_frames[0], self.clock, self.timestamps_derived
        )
        self.is_steady = True  # until a scan finds otherwise
        self.end_pts: int | None = None
        if steady_end_pts is not None:
            self._clock_map, self.end_pts = None, steady_end_pts
        elif self.source.kind is SourceKind.FILE:
            self._find_end()

    def _open(self) -> None:
        self.container = open_container(self.source)
        self.stream = main_video_stream(self.container, self.source)
        self.codec = self.stream.codec_context
        assert self.stream.time_base is not None
        self.time_base: Fraction = self.stream.time_base
        self._has_dts = self.container.format.name in JUMPING_CONTAINERS
        hole_seconds = JUMP_SECONDS if self._has_dts and not self._is_slow else MAX_HOLE_SECONDS
        ends_by_dts = self.codec.name in ("mpeg1video", "mpeg2video")
        self._clock_map = ClockMap(self.time_base, self.frame_ticks, hole_seconds, ends_by_dts)

    @property
    def can_seek(self) -> bool:
        """Whether each segment can be decoded alone."""
        is_file = self.source.kind is SourceKind.FILE and self.is_steady
        return is_file and not self.timestamps_derived and self.codec.name in RANDOM_ACCESS_CODECS

    @property
    def jumps(self) -> list[Jump]:
        """Where the file's clock restarted or jumped, among the packets read so far."""
        return self._clock_map.jumps if self._clock_map is not None else []

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets from the present position to the end, in decoding order; damaged data is passed over."""
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
            except IndexError:  # PyAV's, for a packet of a stream that appeared after opening: not our stream
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
        """Frames that the decoder gives for a packet; for None it gives the rest and is reset.

        Raises:
            av.FFmpegError: the packet is damaged.
        """
        try:
            return self.codec.decode(packet)
        finally:
            if packet is None:
                self.codec.flush_buffers()

    def seek(self, pts: int) -> bool:
        """Move roughly to the last keyframe at or before a timestamp; False if the container cannot."""
        try:
            self.container.seek(pts, stream=self.stream, backward=True)
        except (av.FFmpegError, OSError, OverflowError):
            return False
        self.codec.flush_buffers()
        return True

    def seek_keyframe(self, pts: int) -> None:
        """Move to or before a keyframe found by `keyframe_before`; a plain seek in MPEG-TS may land behind it."""
        if pts <= self.clock.origin_pts or not self.seek(self._landings[pts]):
            self.seek_start()

    def seek_start(self) -> None:
        """Move to the first packet; if seeking fails, open the file again."""
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

        Seeking is inexact: Matroska's index is sparse, MPEG-TS has none, only an mp4's index is complete. So all
        packets from the landing to `pts` are read, and every process gets the same answer.
        """
        target, step = pts, round(2 / self.time_base)
        while target > self.clock.origin_pts and self.seek(target):
            found = None
            for packet in self.packets():
                if packet.pts is not None and packet.is_keyframe and not packet.is_discard and packet.pts <= pts:
                    found = packet.pts
                    if target == pts and self._is_mp4:
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
        """Where a video that ends at `end_pts` should end if its file was cut short; None if it is complete.

        An mp4's index names the last packet. Other containers state how many bytes they have. Headers often state a
        wrong length, so it counts only if bytes are missing.
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
        """Find out where the video ends and whether its clock is steady."""
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
            # A still with sound: players show it until the sound ends.
            end_seconds = Fraction(self.container.duration, av.time_base)
            self.end_pts = max(
                self.end_pts or frame_end_pts, self.clock.origin_pts + round(end_seconds / self.time_base)
            )

    def _scan(self) -> None:
        """Read all packets to find the end, the jumps of the clock, and an AVI's slots."""
        self._reopen()
        clock_map = self._clock_map
        slots: list[int] = []
        slots_end = num_packets = 0
        for num_packets, packet in enumerate(self.packets(), 1):  # noqa: B007 - its last value counts
            if self.timestamps_derived and packet.dts is not None:
                slots.append(packet.dts)
                slots_end = packet.dts + (packet.duration or 1)
        num_forward = sum(jump.ticks > 0 for jump in self.jumps)
        if num_forward * SLOW_PACKETS > num_packets and not self._is_slow:
            self._is_slow = True
            self._scan()
            return
        self._is_single = num_packets == 1
        if slots:
            self._slots = Slots(slots, self._delay_packets, self.frame_ticks)
            last_pts = self.derived_pts(len(slots) - 1)
            self.end_pts = max(self.clock.origin_pts + slots_end - slots[0], last_pts + self.frame_ticks)
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
        """Timestamp of the picture shown as the `number`-th, for a file without timestamps."""
        if self._slots is not None:
            return self.clock.origin_pts + self._slots.ticks(number)
        return self.clock.origin_pts + round(number / self.frame_rate / self.time_base)

    def _tail_end(self) -> int | None:
        """Where the display of the last frame ends, read from the file's last packets.

        Headers may state a wrong length; that of a growing file is out of date.
        """
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
        """How many ticks a frame lasts according to the header."""
        return max(1, round(1 / self.frame_rate / self.time_base))

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second according to the header; used only for frames without time or duration."""
        return self.stream.average_rate or self.stream.guessed_rate or DEFAULT_FPS

    def _probe(self) -> Clock:
        """Decode the first picture; the clock that begins with it."""
        # Encrypted pictures may decode to noise. In MPEG-TS, where only the sound may be encrypted, decoding decides.
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
        # AVI has no presentation times. FFmpeg derives them from the order of packets: wrong if frames are reordered.
        can_reorder = self.codec.name in ("h264", "hevc") or self.codec.has_b_frames
        if self.container.format.name == "avi" and can_reorder:
            first_pts = None
        self.timestamps_derived = first_pts is None
        if self.timestamps_derived:
            self._clock_map = None
        origin = first_pts or 0
        if is_damaged and earliest is not None:
            origin = min(origin, earliest)  # damaged pictures at the beginning count as time
        self._begin_dts = min(origin, begin_dts if begin_dts is not None else origin)
        return Clock(self.time_base, origin)
