"""Reading videos: frames at k / fps with their real presentation times, in bounded memory, whatever the file."""

from hourllava.video.reader import FrameReader, probe, read_frames
from hourllava.video.source import source_digest
from hourllava.video.types import FrameBatch, Gap, VideoInfo

__all__ = ["FrameBatch", "FrameReader", "Gap", "VideoInfo", "probe", "read_frames", "source_digest"]
