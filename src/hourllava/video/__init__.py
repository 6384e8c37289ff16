"""Reading videos of any kind: frames at k / fps with their real presentation times, in bounded memory."""

from hourllava.video.identity import SourceState, source_digest, source_state
from hourllava.video.limits import VideoLimits
from hourllava.video.reader import FrameReader, probe, read_frames
from hourllava.video.source import shown_name
from hourllava.video.types import FrameBatch, Gap, VideoInfo

__all__ = [
    "FrameBatch",
    "FrameReader",
    "Gap",
    "SourceState",
    "VideoInfo",
    "VideoLimits",
    "probe",
    "read_frames",
    "shown_name",
    "source_digest",
    "source_state",
]
