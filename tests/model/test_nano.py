"""Nano's weights in the package: loaded as they are stored, and never replaced by others."""

import functools
import shutil

import pytest
import torch

from hourllava.cli.session import describe_installation
from hourllava.errors import CheckpointError
from hourllava.inference.memories.encoder import encoder_identity
from hourllava.model import nano
from hourllava.model.checkpoint import save_weights
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration

MAX_PACKAGE_BYTES = 24 * 10**6


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package's folder with the tokenizer only."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(nano.FOLDER / name, tmp_path)
    monkeypatch.setattr(nano, "FOLDER", tmp_path)
    return tmp_path


@functools.cache
def other_model(seed):
    torch.manual_seed(seed)
    return HourLlavaForConditionalGeneration(HourLlavaConfig.preset("hourllava-nano")).bfloat16()


@pytest.mark.parametrize("max_shard_bytes", [15 * 2**20, 5 * 10**9], ids=["two files", "one file"])
def test_weights_in_the_package_are_loaded_bit_by_bit(package, max_shard_bytes):
    trained = other_model(seed=1)
    save_weights(trained.config, trained.state_dict(), package, max_shard_bytes=max_shard_bytes)
    sizes = [path.stat().st_size for path in package.glob("*.safetensors")]
    assert len(sizes) == (1 if max_shard_bytes > MAX_PACKAGE_BYTES else 2)
    assert max(sizes) <= max_shard_bytes + 2**16  # names and shapes come on top
    assert sum(path.stat().st_size for path in package.iterdir()) <= MAX_PACKAGE_BYTES

    model, processor = nano.load_nano(dtype=torch.bfloat16)
    loaded = model.state_dict()
    assert loaded.keys() == trained.state_dict().keys()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in trained.state_dict().items())
    assert not model.training
    assert processor.decode(processor.tokenizer("the red star").input_ids) == "the red star"
    (described,) = describe_installation(["nano"])["models"].values()
    assert described.startswith("in the package; trained on MarathonWorld")

    wide, _ = nano.load_nano()
    assert wide.dtype == torch.float32
    assert encoder_identity(wide.model) == encoder_identity(trained.model) != encoder_identity(other_model(2).model)


def test_missing_and_damaged_weights_are_said_to_be_so(package):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        nano.load_nano()
    trained = other_model(seed=1)
    save_weights(trained.config, trained.state_dict(), package)
    (weights,) = package.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        nano.load_nano()
    weights.unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        nano.load_nano()
