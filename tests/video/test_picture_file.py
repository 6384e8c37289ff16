"""Picture files of any mode, orientation and transparency look as in a viewer."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from hourllava.data.prepare.shard import _jpeg
from hourllava.errors import DataError, VideoError
from hourllava.video.picture_file import PICTURE_ERRORS, open_picture, upright_rgb
from video.reading import open_here, read_here

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (64, 1))
ORIENTATION = 0x0112


def read(path):
    with open_picture(path) as picture:
        return np.asarray(upright_rgb(picture)).astype(int)


def shown_by_all(path):
    """The picture alone, as a record's, and as a frame of a folder: [3, H, W, 3]."""
    alone = read(path)
    record = np.asarray(Image.open(io.BytesIO(_jpeg(path.name, path.parent, None)))).astype(int)
    return alone, record, read_here(path.parent).frames[0].astype(int)


GREYS = {
    "8 bits.png": RAMP,
    "16 bits.png": RAMP.astype(np.uint16) * 257,
    "16 bits.tiff": RAMP.astype(np.uint16) * 257,
    "16 bits big-endian.tiff": (RAMP.astype(np.uint16) * 257).astype(">u2"),
    "32 bits of 8.tiff": RAMP.astype(np.int32),
    "32 bits of 16.tiff": RAMP.astype(np.int32) * 257,
    "32 bits.tiff": RAMP.astype(np.int32) * (2**31 // 256),
    "float 0 to 1.tiff": RAMP.astype(np.float32) / 255,
    "float 0 to 255.tiff": RAMP.astype(np.float32),
    "float 0 to 65535.tiff": RAMP.astype(np.float32) * 257,
}


@pytest.mark.parametrize("name", GREYS)
def test_grey_of_any_depth_keeps_its_look(name, tmp_path):
    Image.fromarray(GREYS[name]).save(tmp_path / name)
    for shown in shown_by_all(tmp_path / name):
        assert np.abs(shown - RAMP[..., None].astype(int)).max() <= 3, name  # JPEG


def test_more_than_8_bits_of_a_pgm(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P5 64 64 65535\n" + (RAMP.astype(np.uint16) * 257).astype(">u2").tobytes())
    for shown in shown_by_all(tmp_path / "a.ppm"):
        assert np.abs(shown - RAMP[..., None].astype(int)).max() <= 3


@pytest.mark.parametrize(
    "values", [-RAMP.astype(np.float32), RAMP.astype(np.float32) * 1e9, np.full((8, 8), np.nan, np.float32)]
)
def test_values_outside_known_ranges_are_refused(values, tmp_path):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="allowed: 0 to 1, 255, 65535"):
        read(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff is damaged, or of a form that is not read: its values are"):
        _jpeg("a.tiff", tmp_path, None)
    with pytest.raises(VideoError, match=r"a\.tiff cannot be read as a picture"):
        open_here(tmp_path)


def ink(mode):
    """Black ink on a transparent page."""
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[16:48, 16:48, 3] = 255
    picture = Image.fromarray(rgba)
    if mode != "P":
        return picture.convert(mode)
    indexed = Image.fromarray((rgba[..., 3] // 255).astype(np.uint8), "P")
    indexed.putpalette([0, 0, 0, 0, 0, 0])
    indexed.info["transparency"] = 0
    return indexed


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("mode", "ending"), [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("RGBA", "webp")]
)
def test_transparency_is_shown_over_white(mode, ending, tmp_path):
    ink(mode).save(tmp_path / f"a.{ending}", **({"lossless": True} if ending == "webp" else {}))
    for shown in shown_by_all(tmp_path / f"a.{ending}"):
        assert shown[:8].min() > 240
        assert shown[24:40, 24:40].max() < 15


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_a_colour_that_stands_for_transparent_is_white(mode, tmp_path):
    grey = np.full((64, 64), 70, np.uint8)
    grey[16:48, 16:48] = 10
    picture = Image.fromarray(grey.astype(np.uint16) * 257 if mode == "I;16" else grey)
    picture = picture if mode == "I;16" else picture.convert(mode)
    transparent = {"L": 70, "RGB": (70, 70, 70), "I;16": 70 * 257}[mode]
    picture.save(tmp_path / "a.png", transparency=transparent)
    shown = read(tmp_path / "a.png")
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[32, 32].tolist() == [10, 10, 10]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_are_upright(mode, orientation, ending, tmp_path):
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:12, :20], pixels[:12, 20:], pixels[12:, :20] = 250, 160, 80  # all corners differ
    stored = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / f"a.{ending}", exif=exif.tobytes())
    with Image.open(io.BytesIO((tmp_path / f"a.{ending}").read_bytes())) as picture:
        picture.load()
        right = np.asarray(ImageOps.exif_transpose(picture).convert("RGB")).astype(int)
    assert right.shape[:2] == ((40, 24) if orientation > 4 else (24, 40))
    for shown in shown_by_all(tmp_path / f"a.{ending}"):
        assert shown.shape == right.shape
        assert np.abs(shown - right).mean() < 4
    stored_bytes = (tmp_path / f"a.{ending}").read_bytes()
    is_copied = _jpeg(f"a.{ending}", tmp_path, None) == stored_bytes
    assert is_copied == (ending == "jpg" and mode == "RGB" and orientation == 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_damaged_orientation_is_ignored(tmp_path):
    picture = Image.fromarray(RAMP).convert("RGB")
    picture.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert np.abs(read(tmp_path / "a.jpg") - RAMP[..., None].astype(int)).max() <= 4
    assert _jpeg("a.jpg", tmp_path, None) == (tmp_path / "a.jpg").read_bytes()


def test_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.new("1", (3000, 3000)).save(tmp_path / "a.png")
    Image.new("RGB", (3000, 3000)).save(tmp_path / "b.jpg", quality=1)
    for limit in (8_000_000, 4_000_000):  # Pillow warns at the first and refuses at the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for name in ("a.png", "b.jpg"):
            with pytest.raises(PICTURE_ERRORS):
                open_picture(tmp_path / name)
            with pytest.raises(DataError, match=f"{name} has more than {limit} pixels"):
                _jpeg(name, tmp_path, None)
        with pytest.raises(VideoError, match=r"a\.png cannot be read as a picture"):
            open_here(tmp_path)
