"""What an opened video is: `VideoInfo` from its container, its stream and its first decoded picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hourllava.video.layout import NO_CROP, Crop, cropping
from hourllava.video.picture import check_size, orientation, transfer_name
from hourllava.video.source import Source, SourceKind
from hourllava.video.timeline import Clock
from hourllava.video.types import VideoInfo


def describe(
    source: Source,
    container: InputContainer,
    stream: VideoStream,
    frame: VideoFrame,
    clock: Clock,
    timestamps_derived: bool,
) -> tuple[VideoInfo, Crop]:
    """What a video is, and the crop of its pictures.

    Raises:
        VideoError: its pictures are too large as displayed.
    """
    aspect = stream.sample_aspect_ratio
    if not aspect or aspect < 0:
        aspect = Fraction(1)
    crop = cropping(Path(source.location)) if source.kind is SourceKind.FILE else NO_CROP
    width, height = frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom
    if width < 1 or height < 1:
        crop, width, height = NO_CROP, frame.width, frame.height
    if aspect > 1:  # pixels are stretched, never squeezed: no detail is lost
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    check_size(width, height, source.location)
    (swap, _, _), angle = orientation(frame)
    duration = stream.duration * clock.time_base if stream.duration else None
    if duration is None and container.duration:
        duration = Fraction(container.duration, av.time_base)
    rate = stream.average_rate or stream.guessed_rate
    start = clock.origin_pts * clock.time_base
    begin = container.start_time
    player_start = start if begin is None else Fraction(begin, av.time_base)
    is_stream = source.kind is SourceKind.STREAM
    info = VideoInfo(
        path=source.location,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=frame.format.name,
        width_pixels=max(1, height if swap else width),
        height_pixels=max(1, width if swap else height),
        rotation_degrees=angle,
        sample_aspect_ratio=float(aspect),
        duration_seconds=float(duration) if duration and not is_stream else None,
        average_fps=float(rate) if rate else None,
        start_seconds=float(start),
        num_streams=len(container.streams),
        player_offset_seconds=max(0.0, float(start - player_start)),
        transfer=transfer_name(frame.color_trc),
        timestamps_derived=timestamps_derived,
        is_live=is_stream or (source.kind is SourceKind.URL and not duration),
    )
    return info, crop
