"""The golden cases pass, and the checker notices what it must notice."""

import functools
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import GOLDEN
from parity.check import (
    Case,
    check_case,
    check_folder,
    listed_cases,
    load_golden_model,
    main,
    model_folder,
)  # fmt: skip

LARGE = ("image_anyres_large", "mixed_batch", "video_features_random")
CASES = (
    "image_anyres",
    "multi_image",
    "text_only",
    "video_features_uniform",
    "video_multi_turn",
    "video_pixels",
    "video_short_features",
)
golden_model = functools.cache(load_golden_model)


def test_the_readme_lists_all_cases():
    assert set(listed_cases(GOLDEN)) == {*CASES, *LARGE}
    assert set(listed_cases(GOLDEN).values()) == {"tiny_features", "tiny_pixels"}


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_golden_case(name):
    case = Case(GOLDEN / f"{name}.safetensors")
    result = check_case(case, golden_model(model_folder(GOLDEN, case)))
    assert result.passed, str(result)
    assert set(result.errors) == {"embeddings", "logits", "loss", "pixels"}
    # Only the random choice cannot be repeated; all others must be made by this library itself.
    assert ("kept" in result.equal) == (name != "video_features_random")


@pytest.mark.slow
def test_a_folder_is_checked_case_by_case():
    results = list(check_folder(GOLDEN))
    assert [result.name for result in results] == sorted([*CASES, *LARGE])
    assert all(result.passed for result in results)


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
