"""`data features`: the same as watching, resumable, and one bad video is one line."""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import GOLDEN, tiny_checkpoint, tiny_model
from forking import run_python
from hourllava.data.features.extract import make_features, run_features
from hourllava.data.features.files import feature_size, load_features, quantize
from hourllava.data.features.items import MAX_ATTEMPTS, find_items, hold_shard
from hourllava.data.features.tower import Tower, load_tower
from hourllava.errors import CheckpointError, ConfigError, DataError, InputError, MemoryFileError
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.encoder import encoder_identity
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.memory_file import write_memory_file
from hourllava.inference.watching.frame_encoder import FrameEncoder
from hourllava.model.checkpoint import load_model
from hourllava.model.config import HourLlavaConfig
from hourllava.model.vision import build_vision_tower
from video.clips import write_clip

CPU = torch.device("cpu")
MODEL = str(tiny_checkpoint())


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Five videos of 6 to 22 s in a folder, s/0.mp4 to s/4.mp4, and two that are none."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "s").mkdir()
    for k in range(5):
        write_clip(folder / "s" / f"{k}.mp4", num_frames=12 + 8 * k, fps=2)
    (folder / "bad.mp4").write_bytes(b"no video" * 100)
    (folder / "empty.mp4").touch()
    return folder


def make(videos, out, **options):
    settings = {"model": MODEL, "progress": False, "devices": [CPU], **options}
    return make_features([videos], out, **settings)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("features")
    return out, make(videos, out)


def test_features_are_what_watching_remembers(videos, made):
    out, report = made
    assert (report.num_made, report.num_kept, len(report.failures)) == (5, 0, 2)
    engine = HourLlava.from_pretrained(MODEL, device="cpu")
    for k in (0, 3):
        watched = engine.watch(videos / f"s/{k}.mp4", progress=False)
        memory = Memory.load(out / f"s/{k}.safetensors")
        memory.check_fits(engine.encoder, fps=1.0, digest=watched.source.digest)
        assert memory.features.dtype == torch.bfloat16
        torch.testing.assert_close(memory.features.float(), watched.features.float(), rtol=0.01, atol=0.01)
        np.testing.assert_array_equal(memory.timestamps_seconds, watched.timestamps_seconds)
        np.testing.assert_array_equal(memory.sample_seconds, watched.sample_seconds)
        assert (memory.duration_seconds, memory.gaps) == (watched.duration_seconds, watched.gaps)


def test_failures_are_in_the_ledger_and_not_fatal(videos, made, tmp_path):
    out, report = made
    lines = [json.loads(line) for line in (out / "failures-0-of-1.jsonl").read_text().splitlines()]
    assert [Path(line["video"]).name for line in lines] == ["bad.mp4", "empty.mp4"]
    assert "no video" in lines[0]["reason"]
    assert "0 bytes" in lines[1]["reason"]
    assert report.ledger == out / "failures-0-of-1.jsonl"
    said = run_features([videos / "gone.mp4"], MODEL, tmp_path, 1.0, "0/1", "cpu", "bfloat16", "memory", 1, "local")
    assert next(said).startswith("0 videos made (0 frames, 0.0 frames/s), 0 kept, 1 failed")
    with pytest.raises(DataError, match="1 of 1 videos failed; see"):
        list(said)
    assert "no such file" in (tmp_path / "failures-0-of-1.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("decoders", [1, 4])
def test_bytes_do_not_depend_on_what_is_decoded_together(videos, made, tmp_path, decoders):
    make(videos, tmp_path / "again", decoders=decoders)
    assert content(tmp_path / "again") == content(made[0])


def test_shards_make_the_same_files(videos, made, tmp_path):
    for k in range(3):
        make(videos, tmp_path, shard=(k, 3))
    ours, whole = content(tmp_path), content(made[0])
    failures = b"".join(ours.pop(f"failures-{k}-of-3.jsonl") for k in range(3))
    assert sorted(failures.splitlines()) == sorted(whole.pop("failures-0-of-1.jsonl").splitlines())
    assert ours == whole


@pytest.mark.slow
def test_several_devices_make_the_same_files(videos, made, tmp_path):
    report = make(videos, tmp_path / "out", devices=[CPU, CPU], decoders=1)
    assert (report.num_made, len(report.failures)) == (5, 2)
    assert content(tmp_path / "out") == content(made[0])


def test_what_is_whole_is_kept_and_all_else_is_made_again(videos, made, tmp_path):
    out = tmp_path / "out"
    make(videos, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    (out / "s/0.safetensors").write_bytes(b"")  # as another tool left it
    (out / "s/1.safetensors").write_bytes((out / "s/1.safetensors").read_bytes()[:-1])
    (out / "s/2.safetensors").write_bytes((out / "s/3.safetensors").read_bytes())  # of another video
    (out / "s/.4.safetensors.abc.unfinished").mkdir()  # of a killed run
    (out / "s/4.safetensors.77.tmp").touch()
    report = make(videos, out)
    assert (report.num_made, report.num_kept) == (3, 2)
    assert content(out) == content(made[0])
    assert not list(out.rglob("*.unfinished"))
    kept = [path.name for path, changed_ns in sorted(before.items()) if path.stat().st_mtime_ns == changed_ns]
    assert kept == ["3.safetensors", "4.safetensors"]


def test_slow_writing_is_waited_for(videos, made, tmp_path, monkeypatch):
    """Encoding does not run ahead by more than one video that is not written."""
    from hourllava.data.features import worker

    def write_late(*arguments, write=worker._write):
        time.sleep(0.01)
        return write(*arguments)

    monkeypatch.setattr(worker, "MAX_UNWRITTEN", 1)
    monkeypatch.setattr(worker, "_write", write_late)
    make(videos, tmp_path)
    assert content(tmp_path) == content(made[0])


def test_a_changed_video_is_made_again(tmp_path):
    (tmp_path / "v").mkdir()
    write_clip(tmp_path / "v/a.mp4", num_frames=10, fps=2)
    make(tmp_path / "v", tmp_path / "out")
    write_clip(tmp_path / "v/a.mp4", num_frames=20, fps=2)
    assert make(tmp_path / "v", tmp_path / "out").num_made == 1
    assert len(Memory.load(tmp_path / "out/a.safetensors")) == 10


def test_a_folder_of_other_settings_is_refused(videos, made, tmp_path):
    for options, words in (
        ({"model": GOLDEN / "tiny_pixels"}, "another checkpoint"),
        ({"fps": 2.0}, r"fps 1\.0, not 2\.0"),
        ({"storage": "int8"}, "storage bfloat16, not int8"),
        ({"form": "released"}, "form memory, not released"),
    ):
        with pytest.raises(DataError, match=words):
            make(videos, made[0], **options)


def test_int8_loses_what_it_says(videos, made, tmp_path):
    report = make(videos, tmp_path, storage="int8")
    largest = 0.0
    for k in range(5):
        paths = made[0] / f"s/{k}.safetensors", tmp_path / f"s/{k}.int8.safetensors"
        exact, restored = map(load_features, paths)
        error = (restored.features.double() - exact.features.double()).norm() / exact.features.double().norm()
        largest = max(largest, float(error))
        np.testing.assert_array_equal(restored.timestamps_seconds, exact.timestamps_seconds)
        assert (restored.encoder, restored.source) == (exact.encoder, exact.source)
        assert 0.45 < paths[1].stat().st_size / paths[0].stat().st_size < 0.7
    assert report.int8_error_share == pytest.approx(largest, rel=1e-6)
    assert 0 < largest < 0.01
    assert make(videos, tmp_path, storage="int8").num_kept == 5


def test_int8_keeps_zeros_and_bounds_the_error_of_each_token():
    exact = torch.randn(300, 4, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact[0, 0] = 0
    exact[1, 1, 3] = 1000
    whole, scales, _ = quantize(exact)
    restored = whole.float() * scales[..., None]
    assert (restored[0, 0] == 0).all()
    # Half a step, and the largest number may be cut where the scale was rounded down.
    assert ((restored - exact.float()).abs() <= 0.5 * scales[..., None] + exact.float().abs() * 2**-8).all()


def test_released_files_hold_even_frames_with_the_last(tmp_path):
    (tmp_path / "v").mkdir()
    write_clip(tmp_path / "v/short.mp4", num_frames=20, fps=2)
    write_clip(tmp_path / "v/long.mp4", num_frames=301, fps=2)
    report = make(tmp_path / "v", tmp_path / "out", form="released")
    assert report.num_made == 2
    engine = HourLlava.from_pretrained(MODEL, device="cpu")
    for name, num_frames, seconds in (("short", 128, 10.0), ("long", 150, 150.5)):
        raw = torch.load(tmp_path / f"out/{name}.pt", weights_only=True)
        assert list(raw["vid_feat"].shape) == [num_frames, 16, engine.model.config.vision_feature_width]
        assert raw["duration"] == pytest.approx(seconds)
        every = engine.watch(tmp_path / f"v/{name}.mp4", fps=2, progress=False).features.float()
        # Frame i is shown at i / 2; samples are spread over [0, the end).
        chosen = np.floor(np.linspace(0, (seconds - 1e-3) * 2, num_frames)).astype(int)
        assert chosen[-1] == len(every) - 1
        torch.testing.assert_close(raw["vid_feat"].float(), every[torch.from_numpy(chosen)], rtol=0.01, atol=0.01)
    memory = Memory.load_released(tmp_path / "out/long.pt")
    assert (len(memory), memory.duration_seconds) == (150, pytest.approx(150.5))
    (tmp_path / "out/short.pt").write_bytes(b"")
    assert (make(tmp_path / "v", tmp_path / "out", form="released").num_made) == 1


@pytest.mark.parametrize("layout", ["released", "ours"])
def test_the_tower_alone_is_the_models(tmp_path, layout):
    folder = GOLDEN / "tiny_pixels"
    if layout == "ours":
        folder = tmp_path
        tiny_model().float().save_pretrained(folder)
    model, _ = load_model(folder, dtype=torch.float32)
    tower = load_tower(folder, CPU, torch.float32, batch_frames=4)
    assert tower.identity == encoder_identity(model.model)
    frames = torch.randint(0, 256, (3, tower.image_pixels, tower.image_pixels, 3), dtype=torch.uint8)
    expected = FrameEncoder(model).launch(frames).wait()
    torch.testing.assert_close(tower.encode(frames).float(), expected.float(), rtol=0.01, atol=0.01)


def test_a_checkpoint_without_its_tower_is_refused(tmp_path):
    for path in (GOLDEN / "tiny_pixels").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if "vision_tower" in name)
    value = tensors.pop(name)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="lacks"):
        load_tower(tmp_path, CPU, torch.float32, 1)
    save_file(tensors | {name: value[:1].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="has shape"):
        load_tower(tmp_path, CPU, torch.float32, 1)


def rows_agree(tower):
    """Whether a frame's features are the same, bit for bit, anywhere in a batch of any frames."""
    size = tower.image_pixels
    frames = torch.randint(0, 256, (tower.batch_frames, size, size, 3), dtype=torch.uint8)
    whole = tower.encode(frames).cpu()
    order = torch.randperm(len(frames))
    assert torch.equal(tower.encode(frames[order]).cpu(), whole[order])
    assert torch.equal(tower.encode(frames[:3]).cpu(), whole[:3])
    assert torch.equal(tower.encode(torch.cat([frames[-1:], frames[:5]])).cpu(), torch.cat([whole[-1:], whole[:5]]))


def test_a_frame_does_not_depend_on_its_batch():
    rows_agree(load_tower(MODEL, CPU, torch.float32, batch_frames=16))


@pytest.mark.gpu
def test_a_frame_does_not_depend_on_its_batch_on_a_gpu():
    config = HourLlavaConfig.preset("hourllava-3b")
    tower = build_vision_tower(config).to("cuda", torch.bfloat16).eval()
    rows_agree(Tower(config, tower, batch_frames=128))


def test_names_that_collide_and_bad_options_are_refused(videos, tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("a.mp4", "a.webm"):
        (tmp_path / "v" / name).touch()
    with pytest.raises(DataError, match="would both become"):
        find_items([tmp_path / "v"], tmp_path, ".safetensors")
    with pytest.raises(DataError, match="holds no video"):
        find_items([tmp_path / "empty"], tmp_path, ".safetensors")
    items = find_items([videos, videos / "s"], tmp_path, ".pt")  # one video twice, under two names
    assert [str(item.out.relative_to(tmp_path)) for item in items][:3] == ["0.pt", "1.pt", "2.pt"]
    for options, words in (
        ({"fps": 0.0}, "fps"), ({"decoders": 0}, "decoders"), ({"form": "released", "storage": "int8"}, "memory form")
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            make(videos, tmp_path / "out", **options)
    for options, words in (
        (("float8", "memory", None, "local"), "--dtype"),
        (("int8", "zip", None, "local"), "--format"),
        (("int8", "memory", None, "spark"), "--engine"),
    ):
        with pytest.raises(ConfigError, match=words):
            list(run_features([videos], MODEL, tmp_path, 1.0, "0/1", None, *options))
    with pytest.raises(ConfigError, match="--devices is for this machine"):
        make(videos, tmp_path / "out", engine="ray")


def test_ray_that_is_not_installed_is_said(videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'hourllava\[ray\]'"):
        make(videos, tmp_path / "out", engine="ray", devices=[])


@pytest.mark.parametrize("form", ["memory", "released"])
def test_a_place_that_cannot_be_written_ends_the_run_with_one_line(videos, tmp_path, form):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        make(videos, tmp_path / "file" / "out", form=form)
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))  # as a full disk: writing fails half-way
    try:
        with pytest.raises(MemoryFileError, match="cannot be written") as caught:
            make(videos, out, form=form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["features.json"]
    assert make(videos / "s", out, form=form).num_made == 5


def test_a_video_whose_times_go_back_fails_alone(videos, tmp_path, monkeypatch):
    from hourllava.data.features import worker

    def remember(features, timestamps_seconds, *rest, source, **fields):
        if source.file_name == "1.mp4":
            timestamps_seconds = timestamps_seconds[::-1]
        return Memory(features, timestamps_seconds, *rest, source=source, **fields)

    monkeypatch.setattr(worker, "Memory", remember)
    report = make(videos / "s", tmp_path)
    assert report.num_made == 4
    assert [(Path(video).name, "go back in time" in reason) for video, reason in report.failures] == [("1.mp4", True)]


@pytest.mark.slow
def test_a_device_that_fails_is_told(videos, tmp_path, monkeypatch):
    from hourllava.data.features import extract

    monkeypatch.setattr(extract, "usable_dtype", lambda dtype, device: "nonsense")
    with pytest.raises(DataError, match="the process of cpu ended"):
        make(videos, tmp_path / "out", devices=[CPU, CPU])


KILLED = """
import os, random, signal, sys, time
import torch
from pathlib import Path
from hourllava.data.features.extract import make_features
import transformers.models.siglip.modeling_siglip
torch.set_num_threads(1)
model, videos, out, form, whole_seconds, num_kills = sys.argv[1:]
chance, finished = random.Random(form), 0
for number in range(int(num_kills)):
    if number % 4 == 3:  # more kills would be held against the video that was read then; these are ours
        for note in Path(out).rglob("*.attempt"):
            note.unlink()
    child = os.fork()  # after the imports, which take longer than the work
    if child == 0:
        make_features([Path(videos)], Path(out), model=model, form=form, devices=[torch.device("cpu")], progress=False)
        os._exit(0)
    time.sleep(chance.uniform(0, float(whole_seconds)))
    os.kill(child, signal.SIGKILL)
    finished += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(finished)
"""


def check_kills(videos, tmp_path, form, num_kills):
    report = make(videos, tmp_path / "whole", form=form)
    arguments = [MODEL, videos, tmp_path / "killed", form, 0.8 * report.seconds, num_kills]
    done = run_python(KILLED, *arguments, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < num_kills
    make(videos, tmp_path / "killed", form=form)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "killed").rglob("*")) == sorted(
        p.name for p in (tmp_path / "whole").rglob("*")
    )


@pytest.mark.slow
def test_killed_at_any_moment_the_rerun_ends_with_the_same_bytes(videos, tmp_path):
    check_kills(videos / "s", tmp_path, "memory", 3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["memory", "released"])
def test_killed_at_30_moments_the_rerun_ends_with_the_same_bytes(videos, tmp_path, form):
    check_kills(videos, tmp_path, form, 30)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's own
def test_a_ray_cluster_makes_the_same_files(videos, made, tmp_path, monkeypatch):
    from hourllava.data.features import extract

    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    try:
        report = make(videos, tmp_path / "out", engine="ray", devices=[])
        again = make(videos, tmp_path / "out", engine="ray", devices=[])
        with pytest.raises(DataError, match="another checkpoint"):
            make(videos, tmp_path / "out", engine="ray", devices=[], model=GOLDEN / "tiny_pixels")
        monkeypatch.setattr(extract, "usable_dtype", lambda dtype, device: "nonsense")
        with pytest.raises(DataError, match=r"a worker of the Ray cluster ended .*nonsense") as caught:
            make(videos, tmp_path / "other", engine="ray", devices=[])
        assert "\n" not in str(caught.value)
    finally:
        ray.shutdown()
    assert (report.num_made, len(report.failures)) == (5, 2)
    assert (again.num_made, again.num_kept) == (0, 5)
    assert content(tmp_path / "out") == content(made[0])


def test_a_video_that_kills_the_run_comes_last_and_then_not_at_all(videos, tmp_path, monkeypatch):
    """As if the process had been killed: nothing that it would do on its way out is done."""
    from hourllava.data.features import worker

    class KilledError(Exception):
        pass

    decode, order = worker._decode, []

    def deadly(job, *rest):
        order.append(job.video.name)
        if job.video.name == "0.mp4":
            raise KilledError
        decode(job, *rest)

    monkeypatch.setattr(worker, "_decode", deadly)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(KilledError):
            make(videos / "s", tmp_path, decoders=1)
    assert order == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4", *["0.mp4"] * (MAX_ATTEMPTS - 1)]
    report = make(videos / "s", tmp_path, decoders=1)
    assert (report.num_made, report.num_kept) == (0, 4)
    ((video, reason),) = report.failures
    assert Path(video).name == "0.mp4"
    assert f"{MAX_ATTEMPTS} runs were killed while they read it" in reason
    assert f"{MAX_ATTEMPTS} runs were killed" in report.ledger.read_text()
    assert len(order) == 4 + MAX_ATTEMPTS
    monkeypatch.setattr(worker, "_decode", decode)
    os.utime(videos / "s/0.mp4")  # converted, or exchanged
    assert make(videos / "s", tmp_path, decoders=1).num_made == 1
    assert not list(tmp_path.rglob("*.attempt"))


@pytest.mark.parametrize(
    "error", [pytest.param(KeyboardInterrupt, marks=pytest.mark.slow), MemoryFileError("the disk is full")]
)
def test_a_run_that_ends_in_order_suspects_no_video(error, videos, tmp_path, monkeypatch):
    from hourllava.data.features import worker

    def failing(*_):
        raise error

    monkeypatch.setattr(worker, "write_features", failing)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        make(videos / "s", tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.attempt"))
    assert make(videos / "s", tmp_path).num_made == 5


@pytest.mark.parametrize(
    ("shards", "refused"), [(((0, 1), (0, 1)), True), (((0, 2), (0, 3)), True), (((0, 2), (1, 2)), False)]
)
def test_two_runs_at_once_make_no_video_twice(shards, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("hourllava.locks.WAIT_SECONDS", 0)
    first, second = shards
    said = ""
    with hold_shard(tmp_path, first):
        try:
            with hold_shard(tmp_path, second):
                pass
        except DataError as error:
            said = str(error)
    assert ("is being written by another process" in said) == refused
    with hold_shard(tmp_path, second):
        pass
    assert not list(tmp_path.iterdir())


FIELDS = {
    "fps": 1.0, "duration_seconds": 3.0, "source": {"name": "a", "digest": "0"},
    "encoder": {"digest": "d", "feature_width": 8, "grid": 2}, "gaps": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "shapes", "fields"),
    [
        (".safetensors", {"features": (3, 32)}, {}),
        (".safetensors", {"features": (96,)}, {}),
        (".safetensors", {"features": ()}, {}),
        (".safetensors", {"features": (3, 2, 2, 8)}, {}),
        (".safetensors", {"features": (3, 0, 8)}, {}),
        (".safetensors", {"features": (3, 4, 0)}, {}),
        (".safetensors", {"features": None}, {}),
        (".safetensors", {"timestamps_seconds": (2,)}, {}),
        (".safetensors", {"sample_seconds": None}, {}),
        (".safetensors", {}, {"duration_seconds": 10**400}),
        (".safetensors", {}, {"duration_seconds": float("nan")}),
        (".safetensors", {}, {"duration_seconds": -1.0}),
        (".safetensors", {}, {"duration_seconds": [3]}),
        (".int8.safetensors", {"scales": None}, {}),
        (".int8.safetensors", {"scales": (3,)}, {}),
        (".int8.safetensors", {"scales": (1, 1)}, {}),
        (".int8.safetensors", {"features": (3, 32)}, {}),
        (".int8.safetensors", {}, {"encoder": {"digest": "d", "feature_width": 9, "grid": 2}}),
        (".int8.safetensors", {}, {"source": "a"}),
    ],
)
def test_feature_files_of_another_shape_are_one_line(suffix, shapes, fields, tmp_path):
    is_int8 = suffix.startswith(".int8")
    right = {"features": (3, 4, 8), "timestamps_seconds": (3,), "sample_seconds": (3,)}
    right |= {"scales": (3, 4)} if is_int8 else {}
    kinds = {"features": torch.int8 if is_int8 else torch.bfloat16, "scales": torch.float32}

    def write(shapes, fields):
        tensors = {
            name: torch.zeros(shape, dtype=kinds.get(name, torch.float64))
            for name, shape in (right | shapes).items() if shape is not None
        }  # fmt: skip
        if tensors.get("sample_seconds") is not None:
            tensors["sample_seconds"] = torch.arange(3, dtype=torch.float64)
        write_memory_file(path, tensors, FIELDS | fields)

    path = tmp_path / f"a{suffix}"
    write(shapes, fields)
    with pytest.raises((MemoryFileError, InputError)) as caught:
        load_features(path)
    assert "\n" not in str(caught.value)
    if shapes or "duration_seconds" in fields:
        with pytest.raises(MemoryFileError) as caught:
            feature_size(path)
        assert "\n" not in str(caught.value)
    write({}, {})
    assert feature_size(path) == ((3, 4, 8), 3.0)
    assert len(load_features(path)) == 3
