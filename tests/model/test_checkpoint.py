"""Published checkpoints: every name and shape, both ways, and what a damaged one gets."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import GOLDEN, tiny_config, tiny_model
from hourllava.errors import CheckpointError
from hourllava.model.checkpoint import (
    OWN_FIELDS,
    export_released,
    find_checkpoint,
    load_model,
    released_name,
)
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration


def released_shapes(width, layers, heads, groups, mlp, vocab, tied):
    """Names and shapes of a released checkpoint, written down from the published numbers."""
    kv = width // heads * groups
    shapes = {
        "model.embed_tokens.weight": (vocab, width),
        "model.norm.weight": (width,),
        "model.image_newline": (width,),
    }
    if not tied:
        shapes["lm_head.weight"] = (vocab, width)
    for n in range(layers):
        layer = f"model.layers.{n}."
        for name, rows in (("q", width), ("k", kv), ("v", kv)):
            shapes[f"{layer}self_attn.{name}_proj.weight"] = (rows, width)
            shapes[f"{layer}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{layer}self_attn.o_proj.weight"] = (width, width)
        shapes[f"{layer}mlp.gate_proj.weight"] = shapes[f"{layer}mlp.up_proj.weight"] = (mlp, width)
        shapes[f"{layer}mlp.down_proj.weight"] = (width, mlp)
        shapes[f"{layer}input_layernorm.weight"] = shapes[f"{layer}post_attention_layernorm.weight"] = (width,)
    for n in range(4):
        block = f"model.vision_resampler.layers.{n}."
        linear = {
            "self_attn.Wqkv": (width + 2 * kv, width),
            "self_attn.Wo": (width, width),
            "cross_attn.Wq": (width, width),
            "cross_attn.Wkv": (2 * kv, width),
            "cross_attn.Wo": (width, width),
            "mlp.0": (4 * width, width),
            "mlp.2": (width, 4 * width),
        }
        for name, shape in linear.items():
            shapes[f"{block}{name}.weight"] = shape
            shapes[f"{block}{name}.bias"] = shape[:1]
        for norm in ("norm1", "norm2", "norm3"):
            shapes[f"{block}{norm}.weight"] = shapes[f"{block}{norm}.bias"] = (width,)
    for name, columns in (("0", 1152), ("2", width)):
        shapes[f"model.mm_projector.{name}.weight"] = (width, columns)
        shapes[f"model.mm_projector.{name}.bias"] = (width,)
    tower = "model.vision_tower.vision_tower.vision_model."
    shapes[f"{tower}embeddings.patch_embedding.weight"] = (1152, 3, 14, 14)
    shapes[f"{tower}embeddings.patch_embedding.bias"] = (1152,)
    shapes[f"{tower}embeddings.position_embedding.weight"] = (729, 1152)
    for part in ("weight", "bias"):
        shapes[f"{tower}post_layernorm.{part}"] = (1152,)
    for n in range(26):
        layer = f"{tower}encoder.layers.{n}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{layer}self_attn.{name}.weight"] = (1152, 1152)
            shapes[f"{layer}self_attn.{name}.bias"] = (1152,)
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}{norm}.weight"] = shapes[f"{layer}{norm}.bias"] = (1152,)
        shapes[f"{layer}mlp.fc1.weight"], shapes[f"{layer}mlp.fc1.bias"] = (4304, 1152), (4304,)
        shapes[f"{layer}mlp.fc2.weight"], shapes[f"{layer}mlp.fc2.bias"] = (1152, 4304), (1152,)
    return shapes


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [
        ("hourllava-3b", (2048, 36, 16, 2, 11008, 151936, True)),
        ("hourllava-7b", (3584, 28, 28, 4, 18944, 152064, False)),
    ],
)
def test_published_models_have_the_released_names_and_shapes(preset, numbers):
    with torch.device("meta"):
        model = HourLlavaForConditionalGeneration(HourLlavaConfig.preset(preset))
    ours = {released_name(name): tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert ours == released_shapes(*numbers)
    assert len(ours) == len(list(model.named_parameters()))  # one to one


def copy_released(tmp_path, name="tiny_pixels"):
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    return folder


def edit(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_export_writes_the_released_layout_back(tmp_path):
    model, report = load_model(GOLDEN / "tiny_pixels")
    assert (len(report.loaded), report.fresh, report.unexpected) == (149, (), ())
    export_released(model, tmp_path)
    original, written = (
        load_file(GOLDEN / "tiny_pixels" / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], original[name]) for name in original)
    flat, golden_flat = (json.loads((f / "config.json").read_text()) for f in (tmp_path, GOLDEN / "tiny_pixels"))
    added = {"mm_vision_select_layer"}  # a default in the golden config
    assert {key: flat[key] for key in flat if key not in added} == {
        key: golden_flat[key] for key in flat if key not in added
    }
    again, _ = load_model(tmp_path)
    for field in OWN_FIELDS:
        assert getattr(again.config, field) == getattr(model.config, field)


def test_our_own_layout(tmp_path):
    model = tiny_model().float()
    model.save_pretrained(tmp_path)
    loaded, report = load_model(tmp_path, dtype=torch.bfloat16)
    assert not report.fresh
    assert not report.unexpected
    assert loaded.dtype == torch.bfloat16
    assert not loaded.training
    torch.testing.assert_close(loaded.lm_head.weight, model.lm_head.weight.bfloat16())


PUBLISHED_FIELDS = {"video_grid": 8, "min_video_frames": 128, "max_image_tiles": 6}


def test_tied_embeddings_survive_both_layouts(tmp_path):
    base = tiny_config()
    text = {**base.text_config.to_dict(), "tie_word_embeddings": True}
    vision = {**base.vision_config.to_dict(), "patch_size": 3}
    config = tiny_config(text_config=text, vision_config=vision, **PUBLISHED_FIELDS)
    model = tiny_model(config).float()
    model.tie_weights()
    model.save_pretrained(tmp_path / "ours")
    export_released(model, tmp_path / "released")
    for layout in ("ours", "released"):
        loaded, _ = load_model(tmp_path / layout)
        assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("model_type", ["llava", "llava_qwen"])
def test_llava_onevision_starts_with_a_fresh_memaug(tmp_path, model_type):
    folder = copy_released(tmp_path)
    edit_config(folder, model_type=model_type)
    edit(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "vision_resampler" in name])
    model, report = load_model(folder)
    assert len(report.fresh) == 4 * 20
    assert all(name.startswith("model.memaug.blocks.") for name in report.fresh)
    assert "80 fresh: model.memaug.blocks.0." in str(report)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert model.model.memaug.blocks[3].mlp.fc1.weight.std() > 0.01
    assert torch.equal(model.model.memaug.blocks[0].norm1.weight, torch.ones(32))


def test_unexpected_tensors_are_named(tmp_path):
    folder = copy_released(tmp_path)
    edit(folder, lambda tensors: tensors.update({"model.faster_token": torch.zeros(32)}))
    _, report = load_model(folder)
    assert report.unexpected == ("model.faster_token",)
    assert "1 unexpected: model.faster_token" in str(report)


def break_shape(folder):
    edit(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(33)}))


def break_missing(folder):
    edit(folder, lambda tensors: tensors.pop("model.mm_projector.2.bias"))


def break_memaug_in_part(folder):
    edit(folder, lambda tensors: tensors.pop("model.vision_resampler.layers.1.norm2.bias"))


def break_tower(folder):
    (folder / "vision_config.json").unlink()


def break_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def break_no_weights(folder):
    (folder / "model.safetensors").unlink()


def break_truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_missing_shard(folder):
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def break_config(folder):
    (folder / "config.json").write_text("{")


def break_no_config(folder):
    (folder / "config.json").unlink()


def break_type(folder):
    edit_config(folder, model_type="bert")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (break_shape, r"model.norm.weight has shape \[33\] .* makes it \[32\]"),
        (break_missing, "lacks 1 tensors, first model.mm_projector.2.bias"),
        (break_memaug_in_part, "lacks 1 tensors, first model.vision_resampler.layers.1.norm2.bias"),
        (break_tower, "names the vision tower 'tiny-siglip', which is not known; known: google/siglip"),
        (break_pickle, r"pickled weights only \(pytorch_model.bin\), .* convert them to safetensors"),
        (break_no_weights, "holds no weights"),
        (break_truncated, "is damaged or cut short .* download it again"),
        (break_missing_shard, "model-00002.safetensors is named in the index but missing"),
        (break_config, "cannot be read as JSON"),
        (break_no_config, "holds no config.json"),
        (break_type, "holds a 'bert' model; allowed are hourllava, hour_llava_qwen"),
    ],
)
def test_damage_is_told_in_one_line(tmp_path, damage, complaint):
    folder = copy_released(tmp_path)
    damage(folder)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("no/such-model", "no/such/folder", "/no such folder"):
        with pytest.raises(CheckpointError, match="there is no folder"):
            find_checkpoint(name)


def test_what_the_released_layout_cannot_say_is_not_exported(tmp_path):
    with pytest.raises(CheckpointError, match="would make another model of this one: video_grid is 8"):
        export_released(tiny_model(), tmp_path)
    vision = {**tiny_config().vision_config.to_dict(), "patch_size": 3}
    with pytest.raises(CheckpointError, match="cannot say that video_grid is 4, it would be read as 8"):
        export_released(tiny_model(tiny_config(vision_config=vision)), tmp_path)
    assert not list(tmp_path.iterdir())
    config = tiny_config(
        text_config={**tiny_config().text_config.to_dict(), "model_type": "llama", "layer_types": None}
    )
    with pytest.raises(CheckpointError, match="holds a qwen2 decoder only, not 'llama'"):
        export_released(tiny_model(config), tmp_path)
