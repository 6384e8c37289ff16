"""The golden cases pass, and the checker notices what it must notice."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import GOLDEN
from parity.check import check_folder, listed_cases, main

CASES = (
    "image_anyres",
    "image_anyres_large",
    "mixed_batch",
    "multi_image",
    "text_only",
    "video_features_random",
    "video_features_uniform",
    "video_multi_turn",
    "video_pixels",
    "video_short_features",
)


@pytest.fixture(scope="module")
def results():
    return {result.name: result for result in check_folder(GOLDEN)}


def test_the_readme_lists_all_cases():
    assert set(listed_cases(GOLDEN)) == set(CASES)
    assert set(listed_cases(GOLDEN).values()) == {"tiny_features", "tiny_pixels"}


@pytest.mark.parametrize("name", CASES)
def test_golden_case(results, name):
    assert results[name].passed, str(results[name])
    assert set(results[name].errors) == {"embeddings", "logits", "loss", "pixels"}
    # Only the random choice cannot be repeated; all others must be made by this library itself.
    assert ("kept" in results[name].equal) == (name != "video_features_random")


@pytest.fixture
def small_copy(tmp_path):
    """A golden folder with one case."""
    for name in ("tiny_pixels", "text_only.safetensors"):
        source = GOLDEN / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def test_exit_code_zero_only_if_all_is_well(small_copy, monkeypatch, capsys):
    script = Path(__file__).parent / "check.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(small_copy)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("ok   text_only")


@pytest.mark.parametrize("damage", ["missing_case", "missing_model", "other_weights", "other_labels", "no_cases"])
def test_exit_code_one_if_anything_is_wrong(small_copy, damage):
    case = small_copy / "text_only.safetensors"
    if damage == "missing_case":
        shutil.copy(GOLDEN / "README.md", small_copy)
    elif damage == "missing_model":
        shutil.rmtree(small_copy / "tiny_pixels")
    elif damage == "no_cases":
        case.unlink()
    elif damage == "other_weights":
        path = small_copy / "tiny_pixels" / "model.safetensors"
        tensors = load_file(path)
        tensors["model.norm.weight"] += 0.01
        save_file(tensors, path, {"format": "pt"})
    else:
        tensors = load_file(case)
        tensors["expected_labels"][0, -1] += 1
        save_file(tensors, case, {"modalities": '["text"]', "image_sizes": "[null]"})
    assert main([str(small_copy)]) == 1


def test_nan_does_not_pass(small_copy):
    path = small_copy / "tiny_pixels" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    assert main([str(small_copy)]) == 1
