"""Which of FFmpeg's formats may be opened, and the errors for the others.

FFmpeg recognises a format by the file's content, not by its name. Its 300 formats include playlists, which open further
files and addresses; patterns, which take one name for many files; scripts, capture devices, and text drawn as letters.
With them a downloaded file could show another file of this machine, and a memory could be kept for content that is not
in the file. So FFmpeg gets a list of formats that lie in one file, and refuses all others.
"""

from __future__ import annotations

import re

CONTAINERS = (
    *("asf", "avi", "bink", "cine", "dhav", "dv", "flv", "gxf", "hxvs", "ifv", "ivf", "ivr", "kux", "live_flv"),
    *("luodat", "lxf", "matroska", "mov", "mpeg", "mpegts", "mpegtsraw", "mpjpeg", "mxf", "mxg", "nsv", "nut", "nuv"),
    *("ogg", "pmp", "pva", "rm", "ser", "smjpeg", "smk", "swf", "ty", "usm", "vivo", "wtv", "yuv4mpegpipe"),
)
RAW_STREAMS = (
    *("apv", "av1", "avs2", "avs3", "cavsvideo", "dirac", "dnxhd", "evc", "h261", "h263", "h264", "hevc", "m4v"),
    *("mjpeg", "mjpeg_2000", "mpegvideo", "obu", "vc1", "vc1test", "vvc"),
)
# image2 takes a name with % for many files; with `pattern_type=none` (container.py) it reads the one file of that name.
PICTURES = (
    *("apng", "flic", "gif", "ico", "image2", "jpegxl_anim"),
    *("bmp_pipe", "dds_pipe", "dpx_pipe", "exr_pipe", "gif_pipe", "hdr_pipe", "j2k_pipe", "jpeg_pipe", "jpegls_pipe"),
    *("jpegxl_pipe", "jpegxs_pipe", "pam_pipe", "pbm_pipe", "pcx_pipe", "pfm_pipe", "pgm_pipe", "pgmyuv_pipe"),
    *("phm_pipe", "png_pipe", "ppm_pipe", "psd_pipe", "qoi_pipe", "sgi_pipe", "sunrast_pipe", "tiff_pipe", "webp_pipe"),
)
SOUND = ("aac", "ac3", "aiff", "caf", "eac3", "flac", "mp3", "wav")  # opened for a clear error: no pictures
FORMATS = CONTAINERS + RAW_STREAMS + PICTURES + SOUND

PLAYLIST_FORMATS = ("concat", "dash", "hls", "imf", "webvtt")  # with `allow_playlists`; webvtt: subtitles beside HLS

# Formats of picture files, whatever their suffix. Without this list Pillow runs Ghostscript for an EPS file named .png.
PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

_PLAYLIST_NAMES = {
    **{"concat": "ffconcat", "dash": "DASH", "hls": "HLS", "imf": "IMF", "sdp": "SDP"},
    **{"rtsp": "RTSP", "webm_dash_manifest": "DASH", "vobsub": "VobSub", "mlv": "Magic Lantern in several files"},
}
_PLAYLIST_HEADS = {  # how the text begins, after white space
    "ffconcat": rb"ffconcat",
    "HLS": rb"#EXTM3U",
    "SDP": rb"v=0\r?\n(?:[a-z]=.*\r?\n)*?[oscmt]=",
    "PLS": rb"(?i:\[playlist\])",
    "ASX": rb"(?i:<asx\b|\[reference\])",
    "SMIL": rb"<smil\b",
    "XSPF": rb"(?:<\?xml[^>]*>\s*)?<playlist\b",
    "DASH": rb"(?=<)(?s:.*?)<(?:\w+:)?MPD\b",
    "IMF": rb"(?=<)(?s:.*?)<(?:\w+:)?CompositionPlaylist\b",
}
_PLAYLIST_HEAD = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:"
    + b"|".join(rb"(?P<%b>%b)" % (name.encode(), head) for name, head in _PLAYLIST_HEADS.items())
    + b")"
)
HEAD_BYTES = 4096


def playlist_name(head: bytes) -> str | None:
    """The kind of playlist, recognised by the first `HEAD_BYTES` of a file; None if it is no playlist."""
    found = _PLAYLIST_HEAD.match(head)
    return found.lastgroup if found else None


def why_refused(format_name: str) -> str:
    """The error for a file that FFmpeg takes for a format outside `FORMATS`."""
    name = _PLAYLIST_NAMES.get(format_name)
    if name is not None:
        return describe_playlist(name)
    return (
        f"FFmpeg takes it for {format_name!r}, which is not among the allowed video formats; convert it to mp4 or mkv"
    )


def describe_playlist(name: str) -> str:
    """The error for a playlist."""
    return (
        f"it is a playlist ({name}) that names other files, and playlists are off: give the video that it names, or"
        " pass allow_playlists=True (--allow-playlists) if you trust it"
    )
