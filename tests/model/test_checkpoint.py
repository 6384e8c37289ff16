"""Published checkpoints: every name and shape, both ways, and what a damaged one gets."""

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import GOLDEN, tiny_config, tiny_model
from hourllava.errors import CheckpointError, ConfigError
from hourllava.model.checkpoint import export_released, find_checkpoint, load_config, load_model
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.released import OWN_FIELDS, released_name


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


def break_index(folder):
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


def break_index_types(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}')


def break_dtype(folder):
    edit(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(32, dtype=torch.int64)}))


def break_nesting(folder):
    (folder / "config.json").write_text("[" * 100_000)


def break_encoding(folder):
    path = folder / "config.json"
    path.write_bytes(path.read_bytes().replace(b"model_type", b"model\xff_type"))


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
        (break_index, "must hold a weight_map from tensors to file names"),
        (break_index_types, "must hold a weight_map from tensors to file names"),
        (break_dtype, r"model.norm.weight is of type torch.int64 .* must be floating-point"),
        (break_nesting, "cannot be read as JSON"),
        (break_encoding, "cannot be read as JSON"),
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
    odd = ("n" * 300, "n" * 5000, "a/" * 3000, "a\0b", "a\udcc3b", "a\nb")
    for name in ("no/such-model", "no/such/folder", "/no such folder", *odd):
        with pytest.raises(CheckpointError, match="there is no folder") as caught:
            find_checkpoint(name)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["../secret.safetensors", "/tmp/secret.safetensors", "sub/a.safetensors", "..", ""])
def test_an_index_names_files_beside_it_only(tmp_path, name):
    folder = copy_released(tmp_path)
    shutil.copy(folder / "model.safetensors", tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="weights lie beside their index, in no folder"):
        load_model(folder)


@pytest.mark.parametrize("indexed", [False, True])
def test_links_lead_out_of_a_folder_only_in_the_hubs_cache(tmp_path, indexed):
    folder = copy_released(tmp_path)
    outside = tmp_path / "elsewhere" / "weights.safetensors"
    outside.parent.mkdir()
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)
    if indexed:
        names = dict.fromkeys(load_file(outside), "model.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match="is a link out of its folder"):
        load_model(folder)

    # The layout of huggingface_hub's cache: every file is a link to its content.
    cache = tmp_path / "hub" / "models--a--b"
    snapshot, blobs = cache / "snapshots" / "0123abcd", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path.resolve(), blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert load_model(snapshot)[1].loaded
    linked = tmp_path / "linked"  # a link to the whole folder is no way out of it
    linked.symlink_to(snapshot)
    assert load_model(linked)[1].loaded
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(outside)
    with pytest.raises(CheckpointError, match="is a link out of its folder"):
        load_model(snapshot)


ODD_VALUES = (None, -1, 0, 2**31, 10**30, 0.5, -1.5, float("nan"), float("inf"), "x", "", True, [], [1], {}, {"a": 1})


NUMBERS = {("video_grid",), ("memaug", "rope_theta"), ("text_config", "rms_norm_eps"), ("image_std",)}


def places(content, place=()):
    """Where the fields of a nested dictionary are."""
    for key, value in content.items():
        yield (*place, key)
        if isinstance(value, dict):
            yield from places(value, (*place, key))


@pytest.mark.parametrize("num_values", [1, pytest.param(len(ODD_VALUES), marks=pytest.mark.slow)])
def test_any_value_of_any_field_of_a_configuration_is_taken_or_refused_in_one_line(tmp_path, num_values):
    tiny_model().float().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())
    draw, refused = random.Random(0), set()
    for place in places(whole):
        for value in (*draw.sample(ODD_VALUES, num_values), *([{}] if place in NUMBERS else [])):
            changed = json.loads(json.dumps(whole))
            part = changed
            for key in place[:-1]:
                part = part[key]
            part[place[-1]] = value
            path.write_text(json.dumps(changed))
            if refusal(lambda: load_config(tmp_path)) is not None:
                refused.add(place)
    assert refused >= NUMBERS


@pytest.mark.parametrize("num_mutants", [8, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", ["ours", "released"])
def test_damaged_folders_are_read_or_refused_in_one_line(tmp_path, layout, num_mutants):
    """Each file cut, emptied, with bytes flipped, with fields left out; seeded."""
    whole, folder = tmp_path / "whole", tmp_path / "mutant"
    if layout == "released":
        shutil.copytree(GOLDEN / "tiny_pixels", whole)
    else:
        tiny_model().float().save_pretrained(whole, max_shard_size="200KB")
    shutil.copytree(GOLDEN / "chat" / "tokenizer", whole, dirs_exist_ok=True)
    files = sorted(path.name for path in whole.iterdir())
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} < set(files)
    refused = 0
    for number in range(num_mutants):
        draw = random.Random(number)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = folder / files[number % len(files)]
        damage(path, draw)
        error = refusal(lambda: (load_model(folder), HourLlavaProcessor.from_pretrained(folder)))
        refused += error is not None
    assert refused > num_mutants / 4


def refusal(call):
    """The message of one line with which a call refuses; None if it does not. Anything else fails the test."""
    try:
        call()
    except CheckpointError as error:
        message = str(error)
    else:
        return None
    assert "\n" not in message
    return message


def damage(path, draw):
    content = bytearray(path.read_bytes())
    kind = draw.choice(["cut", "empty", "flip", "field"])
    if kind == "field" and path.suffix == ".json":
        fields = json.loads(content)
        place = draw.choice(sorted(fields))
        value = draw.choice([*ODD_VALUES, "remove"])
        if value == "remove":
            del fields[place]
        else:
            fields[place] = value
        path.write_text(json.dumps(fields))
        return
    if kind == "cut":
        content = content[: draw.randrange(len(content))]
    elif kind == "empty":
        content = bytearray()
    else:
        for _ in range(4):
            content[draw.randrange(min(len(content), 4000))] = draw.randrange(256)
    path.write_bytes(content)


def test_code_in_a_folder_is_never_asked_for(tmp_path):
    """Without tokenizer.json transformers would ask whether to run the folder's code."""
    folder = copy_released(tmp_path)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"})
    )
    edit_config(folder, auto_map={"AutoConfig": "evil.Evil"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(CheckpointError, match=r"the tokenizer in .* cannot be used") as caught:
        HourLlavaProcessor.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_misspelt_settings_are_refused_and_old_configurations_load(tmp_path):
    for name, meant in [("video_gird", "video_grid"), ("max_image_tile", "max_image_tiles"), ("memaugs", "memaug")]:
        with pytest.raises(ConfigError, match=f"has no setting {name}; did you mean {meant}"):
            tiny_config(**{name: 3})
    with pytest.raises(ConfigError, match=r"has no setting faces; known are .*video_grid"):
        tiny_config(faces=3)
    for part, name, meant in [
        ("text_config", "hiden_size", "hidden_size"),
        ("text_config", "num_hidden_layer", "num_hidden_layers"),
        ("vision_config", "patchsize", "patch_size"),
    ]:
        fields = {**tiny_config().to_dict()[part], name: 64}
        with pytest.raises(ConfigError, match=f"{part} has no setting {name}; did you mean {meant}"):
            tiny_config(**{part: fields})
    # What transformers has written into configurations, of this and of earlier versions, and what published ones hold.
    old = {
        **{"_attn_implementation_autoset": True, "torch_dtype": "bfloat16", "use_bfloat16": False, "pruned_heads": {}},
        **{"is_decoder": False, "temperature": 1.0, "max_length": 20, "tie_encoder_decoder": False, "prefix": None},
        **{"output_attentions": False, "_name_or_path": "a/b", "bos_token_id": None, "use_cache": True},
        **{"auto_map": {"AutoConfig": "x.Y"}, "num_labels": 2, "quantization_config": None},
    }
    config = HourLlavaConfig.from_dict({**tiny_config().to_dict(), **old})
    assert config.video_grid == 4
    text = {**tiny_config().text_config.to_dict(), "rope_interleaved": False, "is_llama_config": True}
    assert tiny_config(text_config=text).text_config.hidden_size == 32


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
    for fields, name in [
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": ["sliding_attention"] * 2}, "sliding_window"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}}, "rope_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ]:
        config = tiny_config(text_config={**tiny_config().text_config.to_dict(), **fields})
        with pytest.raises(CheckpointError, match=f"cannot say that {name} is"):
            export_released(tiny_model(config), tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"use_sliding_window": True, "sliding_window": 8},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        {"hidden_act": "gelu"},
    ],
)
def test_a_flat_config_that_says_more_than_is_read_is_refused(tmp_path, fields):
    folder = copy_released(tmp_path)
    edit_config(folder, **fields)
    with pytest.raises(CheckpointError, match=f"{next(iter(fields))} is .* in the released layout only"):
        load_model(folder)
    edit_config(folder, use_sliding_window=False, rope_scaling=None, hidden_act="silu", sliding_window=131072)
    assert load_model(folder)[1].loaded
