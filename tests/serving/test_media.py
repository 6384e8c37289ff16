"""Only files below the media folder can be named, whatever the name looks like."""

import pytest

from hourllava.errors import VideoError
from hourllava.serving import media
from hourllava.serving.media import MediaFile, list_media, media_file


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "media"
    (root / "talks").mkdir(parents=True)
    for name in ("a.mp4", "talks/b.MKV", "talks/b.srt", "notes.txt", "x.world.json", "x.safetensors", ".hidden.mp4"):
        (root / name).write_bytes(b"x")
    (tmp_path / "media-2").mkdir()
    for outside in (tmp_path / "secret.mp4", tmp_path / "media-2" / "secret.mp4"):
        outside.write_bytes(b"secret")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "folder").symlink_to(tmp_path)
    (root / "circle.mp4").symlink_to(root / "circle.mp4")
    (root / "inside.mp4").symlink_to(root / "a.mp4")
    return root


def test_files_are_found_by_relative_paths(root):
    assert media_file(root, "a.mp4") == root / "a.mp4"
    assert media_file(root, "talks/../talks/b.MKV") == root / "talks" / "b.MKV"
    assert media_file(root, "inside.mp4") == root / "a.mp4"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../secret.mp4",
            "talks/../../secret.mp4",
            "link.mp4",
            "folder/secret.mp4",
            "../media-2/secret.mp4",
            "circle.mp4",
        ),
        *("missing.mp4", "", ".", "talks", "a.mp4\0", "a" * 5000, "notes.txt", "x.world.json", "x.safetensors"),
    ],
)
def test_everything_else_gives_one_and_the_same_error(root, path):
    with pytest.raises(VideoError, match="has no file") as raised:
        media_file(root, path)
    assert str(root.parent) not in str(raised.value)


def test_absolute_paths_are_refused_unless_they_are_below(root):
    assert media_file(root, str(root / "a.mp4")) == root / "a.mp4"
    with pytest.raises(VideoError, match="has no file"):
        media_file(root, str(root.parent / "secret.mp4"))


def test_without_a_folder_nothing_is_found(tmp_path):
    with pytest.raises(VideoError, match="no media folder"):
        media_file(None, "a.mp4")
    with pytest.raises(VideoError, match="has no file"):
        media_file(tmp_path / "gone", "a.mp4")
    assert list_media(None) == []


def test_the_list_has_what_can_be_named(root, monkeypatch):
    files = list_media(root)
    assert [(file.path, file.kind) for file in files] == [
        ("a.mp4", "video"),
        ("inside.mp4", "video"),
        ("talks/b.MKV", "video"),
        ("talks/b.srt", "subtitles"),
    ]
    assert files[0] == MediaFile("a.mp4", 1, int((root / "a.mp4").stat().st_mtime), "video")
    monkeypatch.setattr(media, "MAX_LISTED", 2)
    assert len(list_media(root)) == 2
