"""Pixels: the display matrix, pixel shape, colour matrices and ranges, HDR, transparency, odd sizes, PIL's resize."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from hourllava.video import picture
from hourllava.video.picture import HLG, PQ, tone_map
from video.clips import board, number_of, write_clip
from video.reading import open_here, read_here


def first_frame(path, **options):
    return read_here(path, **options).frames[0]


def write_picture(path, codec, pixel_format, planes, layout=None, **colour):
    """A video of one picture [H, W, ...] in `layout`, encoded without loss if the codec can."""
    frame = av.VideoFrame.from_ndarray(planes, format=layout or pixel_format)
    with av.open(str(path), "w") as output:
        options = (
            {"qp": "0"}
            if codec == "libx264"
            else {"x265-params": "lossless=1:log-level=none:pools=none:frame-threads=1"}
        )
        stream = output.add_stream(codec, rate=25, options=options if codec.startswith("libx26") else {})
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixel_format
        for name, value in colour.items():
            setattr(stream.codec_context, name, value)
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation(tmp_path, degrees):
    """The file says: turn counterclockwise by `degrees`."""
    path = write_clip(tmp_path / "clip.mp4", 1, width=96, height=64, rotation=degrees)
    path_upright = write_clip(tmp_path / "upright.mp4", 1, width=96, height=64)
    expected = np.rot90(first_frame(path_upright), degrees // 90)
    info = open_here(path).info
    assert (info.height_pixels, info.width_pixels) == expected.shape[:2]
    assert info.rotation_degrees == -degrees % 360
    np.testing.assert_array_equal(first_frame(path), expected)


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(1, 2)])
def test_sample_aspect_ratio(tmp_path, aspect):
    path = write_clip(tmp_path / "clip.mp4", 8, width=96, height=64, sample_aspect_ratio=aspect)
    info = open_here(path).info
    assert (info.width_pixels, info.height_pixels) == ((128, 64) if aspect > 1 else (96, 128))
    frame = first_frame(path)
    assert number_of(frame) == 0
    assert frame.shape == (info.height_pixels, info.width_pixels, 3)


@pytest.mark.parametrize(("height", "width"), [(384, 384), (20, 100), (7, 5)])
def test_resize_is_that_of_pil(tmp_path, height, width):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (90, 160, 3), np.uint8)
    path = write_picture(tmp_path / "noise.mov", "png", "rgb24", picture)
    expected = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(first_frame(path), picture)
    np.testing.assert_array_equal(first_frame(path, size_pixels=(height, width)), np.asarray(expected))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 17), (1081, 1923)])
def test_odd_sizes(tmp_path, height, width):
    picture = board(5, width, height) if height > 20 else np.full((height, width), 99, np.uint8)
    path = write_picture(tmp_path / "odd.mkv", "ffv1", "gray", picture)
    np.testing.assert_array_equal(first_frame(path), np.repeat(picture[..., None], 3, axis=-1))
    assert first_frame(path, size_pixels=(30, 40)).shape == (30, 40, 3)


# Y, Cb, Cr of pure red, from the definitions: ITU-R BT.709, BT.601, BT.2020, limited and full range
@pytest.mark.parametrize(
    ("matrix", "value_range", "height", "ycbcr"),
    [
        (1, 1, 64, (63, 102, 240)),
        (5, 1, 64, (81, 90, 240)),
        (9, 1, 64, (74, 97, 240)),
        (1, 2, 64, (54, 99, 255)),
        (5, 2, 64, (76, 85, 255)),
        (2, 1, 64, (81, 90, 240)),  # untagged: BT.601 when small, BT.709 when high definition
        (2, 1, 720, (63, 102, 240)),
    ],
)
def test_colour_matrix_and_range(tmp_path, matrix, value_range, height, ycbcr):
    planes = np.empty((height * 3 // 2, 64), np.uint8)
    planes[:height], planes[height : height * 5 // 4], planes[height * 5 // 4 :] = ycbcr
    path = write_picture(tmp_path / "red.mkv", "libx264", "yuv420p", planes, colorspace=matrix, color_range=value_range)
    np.testing.assert_allclose(first_frame(path).reshape(-1, 3).mean(axis=0), [255, 0, 0], atol=3)


def test_ten_bits(tmp_path):
    planes = np.full((96, 64), 512, np.uint16)
    planes[:64] = np.linspace(64, 940, 64).astype(np.uint16)
    path = write_picture(tmp_path / "ramp.mkv", "libx265", "yuv420p10le", planes, colorspace=1, color_range=1)
    frame = first_frame(path)
    np.testing.assert_allclose(frame[30, :, 0], np.linspace(0, 255, 64), atol=1.5)
    assert open_here(path).info.transfer == "sdr"


@pytest.mark.parametrize(("transfer", "name", "white"), [(PQ, "pq", 0.5807), (HLG, "hlg", 0.75)])
def test_hdr_white_is_bright_and_highlights_keep_detail(tmp_path, transfer, name, white):
    """Black, diffuse white of BT.2408 (203 nits: 58 % PQ, 75 % HLG), and highlights that are brighter still."""
    codes = np.repeat([0, white / 2, white, (white + 0.75) / 2 if transfer == PQ else 0.85, 0.95], 16)
    planes = np.full((96, 80), 512, np.uint16)
    planes[:64] = (64 + 876 * codes).astype(np.uint16)
    colour = {"colorspace": 9, "color_range": 1, "color_trc": transfer, "color_primaries": 9}
    path = write_picture(tmp_path / "hdr.mkv", "libx265", "yuv420p10le", planes, **colour)
    assert open_here(path).info.transfer == name
    row = first_frame(path)[30].astype(int)
    levels = row[8::16]
    assert np.ptp(levels, axis=1).max() <= 2  # grey stays grey
    grey = levels[:, 0]
    assert grey[0] == 0
    assert 170 < grey[2] < 215
    assert (np.diff(grey) > 5).all()


def test_tone_map_is_monotonic_and_keeps_black():
    ramp = np.repeat(np.arange(0, 65536, 16, dtype=np.uint16)[None, :, None], 3, axis=-1)
    for transfer in (PQ, HLG):
        mapped = tone_map(ramp, transfer, 9)[0, :, 0].astype(int)
        assert mapped[0] == 0
        assert mapped[-1] == 255
        assert (np.diff(mapped) >= 0).all()


@pytest.mark.parametrize("strip_pixels", [picture.STRIP_PIXELS, 32 * 5])
def test_alpha_is_shown_over_black(tmp_path, monkeypatch, strip_pixels):
    monkeypatch.setattr(picture, "STRIP_PIXELS", strip_pixels)
    rgba = np.empty((32, 32, 4), np.uint8)
    rgba[..., :3] = (200, 100, 50)
    rgba[..., 3] = 255
    rgba[:, 16:, 3] = 128
    path = write_picture(tmp_path / "alpha.mov", "png", "rgba", rgba)
    frame = first_frame(path)
    np.testing.assert_array_equal(frame[:, :16], np.full((32, 16, 3), [200, 100, 50]))
    np.testing.assert_allclose(frame[:, 16:], np.full((32, 16, 3), [100, 50, 25]), atol=1)


def test_size_that_changes_within_a_video(tmp_path):
    """Two joined transport streams: all frames have the size of the first."""
    first = write_clip(tmp_path / "a.ts", 30, 10, width=96, height=64, options={"bf": "0"})
    times = [3 + Fraction(i, 10) for i in range(30)]
    second = write_clip(tmp_path / "b.ts", 30, 10, width=160, height=96, times=times, options={"bf": "0"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    video = read_here(joined)
    assert np.stack(video.frames).shape == (6, 64, 96, 3)
    assert video.numbers == [0, 10, 20, 0, 10, 20]
