import errno
import json
import os
import pickle
import resource
import signal
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from conftest import examples, tiny_config, tiny_model
from forking import start_python
from hourllava.errors import InputError, MemoryFileError
from hourllava.inference.memories import memory as memory_module
from hourllava.inference.memories import memory_file
from hourllava.inference.memories.encoder import EncoderIdentity, encoder_identity
from hourllava.inference.memories.memory import Memory, WatchedSource

ENCODER = EncoderIdentity("a" * 64, feature_width=6, grid=2)


def make_memory(num_frames: int = 5, dtype: torch.dtype = torch.bfloat16, **overrides: Any) -> Memory:
    """Frames at 1 FPS, shown 0.01 s before they are asked for, the first two the same picture."""
    samples = np.arange(num_frames, dtype=np.float64)
    timestamps = np.maximum(samples - 0.01, 0.5)
    features = torch.randn(num_frames, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    fields: dict[str, Any] = {
        "fps": 1.0,
        "duration_seconds": num_frames + 0.25,
        "source": WatchedSource("talk.mp4", "sha256:12"),
        "encoder": ENCODER,
        "gaps": [(1.5, 2.5, "damaged packets")],
        "player_offset_seconds": 7.25,
    }
    return Memory(features, timestamps, samples, **{**fields, **overrides})


def assert_same(got: Memory, expected: Memory) -> None:
    assert got.features.dtype == expected.features.dtype
    assert torch.equal(got.features, expected.features)
    assert np.array_equal(got.timestamps_seconds, expected.timestamps_seconds)
    assert np.array_equal(got.sample_seconds, expected.sample_seconds)
    for name in (
        "fps",
        "duration_seconds",
        "player_offset_seconds",
        "source",
        "encoder",
        "gaps",
        "content_seed",
        "num_bytes",
    ):
        assert getattr(got, name) == getattr(expected, name), name


def test_a_memory_says_what_it_holds() -> None:
    memory = make_memory(num_frames=3700)
    assert memory.num_frames == len(memory) == 3700
    assert memory.num_bytes == 3700 * (4 * 6 * 2 + 8 + 8)
    assert repr(memory) == "Memory(talk.mp4: 3700 frames at 1 fps, 1:01:40, 0.2 MB)"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fps": 0.0}, "fps is 0.0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"duration_seconds": -1.0}, "duration_seconds is -1.0"),
        ({"player_offset_seconds": float("nan")}, "player_offset_seconds is nan"),
        ({"player_offset_seconds": -0.5}, "player_offset_seconds is -0.5"),
        ({"gaps": [(0.0, float("inf"), "x")]}, "gaps must have finite times"),
        ({"encoder": EncoderIdentity("a", feature_width=6, grid=3)}, r"\[9, 6\]"),
    ],
)
def test_numbers_that_cannot_be_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_memory(**overrides)


@pytest.mark.parametrize(
    ("timestamps", "samples", "message"),
    [
        ([0.0, 1.0], [0.0, 1.0, 2.0], "3 frames need as many"),
        ([0.0, 2.0, 1.0], [0.0, 1.0, 2.0], "go back in time"),
        ([0.0, 1.0, 2.0], [0.0, 1.0, 1.0], "sample times must increase"),
        ([0.0, 1.0, float("nan")], [0.0, 1.0, 2.0], "finite"),
    ],
)
def test_times_that_cannot_be_are_refused(timestamps: list[float], samples: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Memory(torch.zeros(3, 4, 6), timestamps, samples, fps=1, duration_seconds=3, source=WatchedSource("x"))


def test_features_must_be_floating_point_grids() -> None:
    for features in (torch.zeros(3, 4), torch.zeros(3, 4, 6, dtype=torch.int64)):
        with pytest.raises(InputError, match="features must be"):
            Memory(features, [0, 1, 2], [0, 1, 2], fps=1, duration_seconds=3, source=WatchedSource("x"))


@examples(40)
@given(lengths=st.lists(st.integers(0, 9), max_size=12), dtype=st.sampled_from([torch.float16, torch.float32]))
def test_appending_piece_by_piece_equals_making_it_at_once(lengths: list[int], dtype: torch.dtype) -> None:
    whole = make_memory(sum(lengths), dtype)
    grown = make_memory(0, dtype, duration_seconds=0.0, gaps=())
    start = 0
    for length in lengths:
        piece = slice(start, start + length)
        grown.append(whole.features[piece], whole.timestamps_seconds[piece], whole.sample_seconds[piece])
        start += length
    assert grown.duration_seconds == (whole.timestamps_seconds[-1] if start else 0.0)
    grown.append(
        whole.features[:0], [], [], duration_seconds=whole.duration_seconds, gaps=[(1.5, 2.5, "damaged packets")]
    )
    assert_same(grown, whole)
    assert grown.version == sum(length > 0 for length in lengths)


def test_growth_copies_seldom_and_leaves_earlier_views_alone() -> None:
    memory = make_memory(1, torch.float32)
    first = memory.features
    expected = first.clone()
    places = set()
    for second in range(1, 256):
        memory.append(torch.full((1, 4, 6), float(second)), [second], [second])
        places.add(memory.features.data_ptr())
    assert len(places) == 8  # of 2, 4, 8, ... 256 frames
    assert torch.equal(first, expected)
    assert torch.equal(memory.features[1:, 0, 0], torch.arange(1.0, 256.0))


def test_a_refused_append_changes_nothing() -> None:
    memory, untouched = make_memory(), make_memory()
    good = torch.zeros(2, 4, 6)
    for features, timestamps, samples, message in (
        (torch.zeros(2, 4, 7), [5, 6], [5, 6], r"appended features are \[4, 7\]"),
        (good, [5], [5, 6], "as many timestamps"),
        (good, [3, 6], [5, 6], "go back in time"),
        (good, [5, 6], [4, 5], "given twice"),
    ):
        with pytest.raises(InputError, match=message):
            memory.append(features, timestamps, samples)
    with pytest.raises(InputError, match="duration_seconds"):
        memory.append(good, [5, 6], [5, 6], duration_seconds=-1)
    assert_same(memory, untouched)
    assert memory.version == 0


@pytest.mark.parametrize("digest", ["sha256:12", None])
def test_the_seed_follows_the_video_and_the_times_alone(digest: str | None) -> None:
    """Not the features: they are rounded otherwise on another device or in another dtype."""
    memory = make_memory(source=WatchedSource("x", digest))
    assert 0 <= memory.content_seed < 2**63
    same = [
        make_memory(source=WatchedSource("other name", digest)),
        make_memory(source=WatchedSource("x", digest), dtype=torch.float32),
        make_memory(source=WatchedSource("x", digest), encoder=None, duration_seconds=9.0),
    ]
    same[1].features.mul_(1.001)
    assert {each.content_seed for each in same} == {memory.content_seed}
    other_times = [
        Memory(
            memory.features, memory.timestamps_seconds + timestamps, memory.sample_seconds + samples,
            fps=1, duration_seconds=5, source=WatchedSource("x", digest),
        )
        for timestamps, samples in ((0.001, 0), (0, 0.001))
    ]  # fmt: skip
    other = [
        *other_times,
        make_memory(6, source=WatchedSource("x", digest)),
        make_memory(source=WatchedSource("x", "sha256:13")),
    ]
    assert len({each.content_seed for each in (memory, *other)}) == 5


NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("place", [0, 17, -1])
def test_features_that_are_not_finite_are_refused(
    tmp_path: Path, number: float, dtype: torch.dtype, place: int
) -> None:
    memory = make_memory(dtype=dtype)
    spoilt = memory.features.clone()
    spoilt.flatten()[place] = number
    with pytest.raises(InputError, match="not finite"):
        Memory(
            spoilt,
            memory.timestamps_seconds,
            memory.sample_seconds,
            fps=1,
            duration_seconds=5,
            source=WatchedSource("x"),
        )
    with pytest.raises(InputError, match="not finite"):
        memory.append(spoilt[:], np.arange(5.0, 10), np.arange(5.0, 10))
    assert_same(memory, make_memory(dtype=dtype))
    memory.features.flatten()[place] = number
    memory.save(tmp_path / "m")
    with pytest.raises(MemoryFileError, match="not finite"):
        Memory.load(tmp_path / "m")


def test_features_that_the_memorys_dtype_cannot_hold_are_refused() -> None:
    memory = make_memory(dtype=torch.float16)
    with pytest.raises(InputError, match="not finite"):
        memory.append(torch.full((1, 4, 6), 1e5), [5], [5])


# Saving and loading


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_saved_memory_comes_back_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "talk.memory.safetensors"
    memory = make_memory(dtype=dtype)
    memory.append(torch.ones(1, 4, 6), [7], [7])  # its rows have room to spare
    memory.save(path)
    loaded = Memory.load(path)
    assert_same(loaded, memory)
    loaded.append(torch.ones(1, 4, 6), [8], [8])
    loaded.save(path)  # over the file that the features of `loaded` came from
    assert_same(Memory.load(path), loaded)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("num_frames", [0, 1])
def test_the_smallest_memories_can_be_saved(tmp_path: Path, num_frames: int) -> None:
    memory = make_memory(num_frames, encoder=None, gaps=(), source=WatchedSource("frames"))
    memory.save(tmp_path / "m")
    assert_same(Memory.load(tmp_path / "m"), memory)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("/home/ann/private/talk.mp4", "talk.mp4"),
        ("C:\\Users\\Ann\\talk.mp4", "talk.mp4"),
        ("https://ann:secret@example.org/videos/talk.mp4?token=secret", "talk.mp4"),
        ("frames/", "frames"),
        ("talk.mp4", "talk.mp4"),
    ],
)
def test_files_hold_no_folders_and_no_secrets(tmp_path: Path, name: str, kept: str) -> None:
    make_memory(source=WatchedSource(name)).save(tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    assert Memory.load(tmp_path / "m").source.name == kept
    assert not any(word in content.lower() for word in (b"ann", b"secret", b"private", str(tmp_path).encode()))


def test_files_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make_memory().save(tmp_path / "m")
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("tenths", range(10))
def test_a_file_cut_short_is_refused(tmp_path: Path, tenths: int) -> None:
    path = tmp_path / "m"
    make_memory(50).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenths // 10])
    with pytest.raises(MemoryFileError, match="cut short or damaged"):
        Memory.load(path)
    path.write_bytes(content[:-1])
    with pytest.raises(MemoryFileError, match="cut short or damaged"):
        Memory.load(path)


def test_a_file_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(memory_file, "FORMAT_VERSION", 3)
        make_memory().save(tmp_path / "m")
    with pytest.raises(MemoryFileError, match="format version 3, this version of hourllava reads up to 2"):
        Memory.load(tmp_path / "m")


def rewritten(path: Path, change: Any) -> None:
    """Change the description of a saved memory."""
    with safe_open(path, framework="pt") as file:
        fields = json.loads(file.metadata()["hourllava_memory"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    change(fields)
    save_file(tensors, path, {"hourllava_memory": json.dumps(fields)})


def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    make_memory().save(tmp_path / "m")
    rewritten(tmp_path / "m", lambda fields: fields.update(format_version=1) or fields.pop("player_offset_seconds"))
    assert_same(Memory.load(tmp_path / "m"), make_memory(player_offset_seconds=0.0))


@pytest.mark.parametrize(
    "change",
    [
        {"source": {"name": 5, "digest": None}},
        {"source": {"name": None}},
        {"source": {"name": "x", "digest": ["sha"]}},
        {"source": {}},
        {"source": "talk.mp4"},
        {"encoder": {"digest": 7, "feature_width": 6, "grid": 2}},
        {"encoder": {"digest": None, "feature_width": 6, "grid": 2}},
        {"encoder": {"digest": "a", "feature_width": "6", "grid": 2}},
        {"encoder": {"digest": "a", "feature_width": 6, "grid": 2.0}},
        {"encoder": {"digest": "a", "feature_width": 6, "grid": True}},
        {"encoder": []},
        {"fps": "1"},
        {"fps": None},
        {"fps": 10**400},
        {"duration_seconds": [5]},
        {"player_offset_seconds": "7"},
        {"player_offset_seconds": -1},
        {"gaps": 5},
        {"gaps": [[1, 2]]},
        {"gaps": [[1, None, "x"]]},
        {"gaps": [[1, float("nan"), "x"]]},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_description_of_other_types_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    make_memory().save(tmp_path / "m")
    rewritten(tmp_path / "m", lambda fields: fields.update(change))
    with pytest.raises(MemoryFileError, match="damaged") as error:
        Memory.load(tmp_path / "m")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [Memory.load, Memory.load_released])
def test_names_that_are_no_files(tmp_path: Path, load: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/null"), "no regular file"),
        (Path("a" * 5000), "too long|refused"),
        (Path("a\0b"), "no NUL"),
        (tmp_path / "pipe" / "x", "there is no memory file|cannot be read|refused"),
    ):
        with pytest.raises(MemoryFileError, match=message) as error:
            load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(MemoryFileError):
        make_memory().save("a" * 5000)
    with pytest.raises(MemoryFileError, match="no NUL"):
        make_memory().save("a\0b")


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_that_is_written_to_is_noticed(tmp_path: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that were read do not depend on the file; mapped ones do."""
    if mapped:
        monkeypatch.setattr(memory_module, "MAX_READ_BYTES", 0)
    path = tmp_path / "m"

    def loaded() -> Memory:
        make_memory().save(path)
        return Memory.load(path)

    copied = loaded()
    os.utime(path, (0, 0))  # as the cache does
    copied.check_file_unchanged()
    make_memory(4).save(path)  # another file of that name: the old one stays where it is mapped
    copied.check_file_unchanged()
    assert_same(copied, make_memory())
    path.unlink()
    copied.check_file_unchanged()
    for change in ("cut", "other memory"):
        copied = loaded()
        make_memory(source=WatchedSource("other.mp4")).save(tmp_path / "other")
        content = (tmp_path / "other").read_bytes()
        path.write_bytes(content[:-48] if change == "cut" else content)
        if mapped:
            with pytest.raises(MemoryFileError, match="was written to"):
                copied.check_file_unchanged()
        else:
            copied.check_file_unchanged()
            assert_same(copied, make_memory())
    copied = loaded()
    copied.append(torch.ones(1, 4, 6), [7], [7])  # copies the features
    path.write_bytes(b"")
    copied.check_file_unchanged()


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with pytest.raises(MemoryFileError, match="there is no memory file"):
        Memory.load(path)
    with pytest.raises(MemoryFileError, match="cannot be read"):
        Memory.load(tmp_path)
    path.write_text("The quick brown fox jumps over the lazy dog.\n" * 9)
    with pytest.raises(MemoryFileError, match="is no memory file"):
        Memory.load(path)
    save_file({"features": torch.zeros(1)}, path)
    with pytest.raises(MemoryFileError, match="a safetensors file but no memory"):
        Memory.load(path)
    for description in ("{", "[]", "7", "null", "{}"):
        save_file({"features": torch.zeros(1)}, path, {"hourllava_memory": description})
        with pytest.raises(MemoryFileError, match="description cannot be read"):
            Memory.load(path)
    save_file({"features": torch.zeros(1)}, path, {"hourllava_memory": '{"format_version": 1}'})
    with pytest.raises(MemoryFileError, match="damaged"):
        Memory.load(path)
    torch.save({"vid_feat": torch.zeros(1)}, tmp_path / "features.pt")
    with pytest.raises(MemoryFileError, match=r"Memory\.load_released"):
        Memory.load(tmp_path / "features.pt")


# Saving that goes wrong


def test_saving_where_one_cannot(tmp_path: Path) -> None:
    with pytest.raises(MemoryFileError, match=r"cannot be written .*No such file") as error:
        make_memory().save(tmp_path / "missing" / "m")
    assert "\n" not in str(error.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(MemoryFileError, match="cannot be written"):
        make_memory().save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_disk_full_at_the_end_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_memory(3).save(tmp_path / "m")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MemoryFileError, match=r"No space left on device.*free space"):
            make_memory(4).save(tmp_path / "m")
    assert len(Memory.load(tmp_path / "m")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_disk_full_amid_the_features_leaves_the_old_file(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk's: the write fails after some of the bytes."""
    make_memory(3).save(tmp_path / "m")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(MemoryFileError, match=r"cannot be written .*too large") as error:
            make_memory(1000).save(tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert len(Memory.load(tmp_path / "m")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_memory(3).save(tmp_path / "m")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_memory(4).save(tmp_path / "m")
    assert len(Memory.load(tmp_path / "m")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


SAVE_FOR_EVER = """
    import sys, torch
    from hourllava.inference.memories.memory import Memory, WatchedSource
    path = sys.argv[1]
    number = 0
    while True:
        number += 1
        times = torch.arange(500.0).numpy()
        features = torch.full((500, 4, 150), float(number % 100))
        Memory(features, times, times, fps=1, duration_seconds=500, source=WatchedSource("x")).save(path)
        if number == 1:
            print("saved", flush=True)
"""


def test_a_killed_save_leaves_a_whole_file(tmp_path: Path) -> None:
    """kill -9 between and amid the saves of 1.2 MB files: what is there is always one of them, whole."""
    path = tmp_path / "m"
    with start_python(textwrap.dedent(SAVE_FOR_EVER), path) as process:
        while not process.stdout:  # until the first save is whole
            assert process.poll() is None, process.stderr
            time.sleep(0.01)
        for _ in range(25):  # what a kill now would leave
            features = Memory.load(path).features
            assert torch.equal(features, features[:1, :1, :1].expand_as(features))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    features = Memory.load(path).features
    assert torch.equal(features, features[:1, :1, :1].expand_as(features))


# Fitting


def test_a_memory_that_fits_is_accepted() -> None:
    memory = make_memory()
    memory.check_fits(ENCODER)
    memory.check_fits(ENCODER, fps=1.0, digest="sha256:12")
    make_memory(encoder=None).check_fits(ENCODER)


@pytest.mark.parametrize(
    ("encoder", "needs", "message"),
    [
        (EncoderIdentity("a" * 64, feature_width=8, grid=2), {}, "4 tokens of width 6 a frame, the model needs 4 of"),
        (
            EncoderIdentity("b" * 64, feature_width=6, grid=2),
            {},
            "another vision encoder .aaaaaaaaaaaa, .*bbbbbbbbbbbb",
        ),
        (ENCODER, {"fps": 2.0}, "holds 1 frames per second, asked for were 2"),
        (ENCODER, {"digest": "sha256:13"}, "talk.mp4 is of another video, or the video has changed"),
    ],
)
def test_a_memory_that_does_not_fit_is_refused(encoder: EncoderIdentity, needs: dict[str, Any], message: str) -> None:
    with pytest.raises(MemoryFileError, match=message):
        make_memory().check_fits(encoder, **needs)


def test_frames_without_a_file_fit_no_file() -> None:
    with pytest.raises(MemoryFileError, match="names no video file"):
        make_memory(source=WatchedSource("frames")).check_fits(ENCODER, digest="sha256:12")


def test_released_features_are_checked_by_their_shape() -> None:
    with pytest.raises(MemoryFileError, match="the model needs 9 of width 6"):
        make_memory(encoder=None).check_fits(EncoderIdentity("a", feature_width=6, grid=3))


def test_an_encoder_is_the_same_in_every_dtype_and_after_training_what_follows() -> None:
    identity = encoder_identity(tiny_model().float().model)
    assert (identity.feature_width, identity.grid) == (24, 4)
    assert encoder_identity(tiny_model().float().bfloat16().model) == identity
    stage_3 = tiny_model().float().model
    with torch.no_grad():
        for name, parameter in stage_3.named_parameters():
            if not name.startswith("vision_tower.") or name.startswith("vision_tower.post_layernorm."):
                parameter.add_(1.0)
    assert encoder_identity(stage_3) == identity


def test_layers_that_are_not_built_do_not_count() -> None:
    """The release stores 26 of 27 layers; features are the same as those of the whole tower."""
    vision = tiny_config().vision_config.to_dict()
    shortened = tiny_config(vision_config={**vision, "num_hidden_layers": 2}, vision_feature_layer=-1)
    assert encoder_identity(tiny_model(shortened).model) == encoder_identity(tiny_model().model)


def test_every_parameter_of_the_tower_counts() -> None:
    model = tiny_model().model
    identities = {encoder_identity(model)}
    parameters = [(name, each) for name, each in model.vision_tower.named_parameters() if "post_layernorm" not in name]
    for _, parameter in parameters:
        with torch.no_grad():
            parameter.flatten()[0] += 1.0  # one number, and one that is looked at
        identities.add(encoder_identity(model))
    assert len(identities) == 1 + len(parameters)


@pytest.mark.parametrize(
    "overrides", [{"image_mean": (0.4, 0.5, 0.5)}, {"image_std": (0.5, 0.5, 0.4)}, {"video_grid": 3}]
)
def test_what_is_done_to_pixels_and_features_counts(overrides: dict[str, Any]) -> None:
    other = tiny_model(tiny_config(**overrides)).model
    assert encoder_identity(other).digest != encoder_identity(tiny_model().model).digest


# Released feature files


def save_released(path: Path, num_frames: int, duration: Any) -> torch.Tensor:
    features = torch.arange(float(num_frames)).half()[:, None, None].expand(num_frames, 4, 6).contiguous()
    torch.save({"vid_feat": features, "duration": duration}, path)
    return features


def test_released_features_of_a_long_video(tmp_path: Path) -> None:
    features = save_released(tmp_path / "v.pt", 300, 300.4)
    memory = Memory.load_released(tmp_path / "v.pt")
    assert torch.equal(memory.features, features)
    np.testing.assert_allclose(memory.timestamps_seconds, np.linspace(0, 300.4, 300))
    assert (memory.fps, memory.duration_seconds, memory.encoder) == (1.0, 300.4, None)
    assert memory.source == WatchedSource("v.pt", None)


def test_released_features_of_a_short_video_are_thinned_to_one_a_second(tmp_path: Path) -> None:
    save_released(tmp_path / "v.pt", 128, 10.9)
    memory = Memory.load_released(tmp_path / "v.pt")
    assert memory.features[:, 0, 0].tolist() == [0, 14, 28, 42, 56, 70, 84, 98, 112, 127]
    assert memory.timestamps_seconds[-1] == 10.9
    assert memory.timestamps_seconds[1] == pytest.approx(10.9 * 14 / 127)
    assert memory.fps == 1.0


def test_released_features_below_a_second_keep_a_frame(tmp_path: Path) -> None:
    save_released(tmp_path / "v.pt", 128, 0.2)
    assert len(Memory.load_released(tmp_path / "v.pt")) == 1


def test_released_features_with_fewer_frames_than_seconds(tmp_path: Path) -> None:
    save_released(tmp_path / "v.pt", 30, 60)
    assert Memory.load_released(tmp_path / "v.pt").fps == 0.5


class Harmful:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    harmful = Harmful(tmp_path / "pickle-was-run")
    torch.save({"vid_feat": torch.zeros(2, 4, 6), "duration": harmful}, tmp_path / "v.pt")
    with pytest.raises(MemoryFileError, match="pickle of more than tensors"):
        Memory.load_released(tmp_path / "v.pt")
    (tmp_path / "v.pt").write_bytes(pickle.dumps(harmful, protocol=2))
    with pytest.raises(MemoryFileError, match="is refused"):
        Memory.load_released(tmp_path / "v.pt")
    assert not harmful.folder.exists()
    pickle.loads(pickle.dumps(harmful))
    assert harmful.folder.exists()  # it would have been seen


@pytest.mark.parametrize("tenths", range(10))
def test_a_released_file_cut_short_is_refused(tmp_path: Path, tenths: int) -> None:
    path = tmp_path / "v.pt"
    save_released(path, 128, 60.0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenths // 10])
    with pytest.raises(MemoryFileError, match=r"v\.pt is refused"):
        Memory.load_released(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no released feature file"),
        ({"vid_feat": torch.zeros(2, 4, 6)}, "no released feature file"),
        ({"vid_feat": torch.zeros(2, 4), "duration": 2.0}, "no tensor"),
        ({"vid_feat": torch.zeros(0, 4, 6), "duration": 2.0}, "no tensor"),
        ({"vid_feat": torch.zeros(2, 4, 6), "duration": "long"}, "'long'"),
        ({"vid_feat": torch.zeros(2, 4, 6), "duration": float("nan")}, "nan"),
        ({"vid_feat": torch.full((2, 4, 6), torch.inf), "duration": 2.0}, "not finite"),
        ({"vid_feat": torch.zeros(2, 4, 6, dtype=torch.int64), "duration": 2.0}, "floating-point"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "v.pt")
    with pytest.raises(MemoryFileError, match=message):
        Memory.load_released(tmp_path / "v.pt")


def test_a_missing_released_file(tmp_path: Path) -> None:
    with pytest.raises(MemoryFileError, match="there is no feature file"):
        Memory.load_released(tmp_path / "v.pt")
    with pytest.raises(MemoryFileError, match="cannot be read"):
        Memory.load_released(tmp_path)
