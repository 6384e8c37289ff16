"""The model that training starts from, and errors of `start`."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hourllava.errors import CheckpointError, ConfigError
from hourllava.model.checkpoint import save_weights
from hourllava.model.nano import load_nano
from hourllava.model.processor import Video
from hourllava.training.recipe import Start
from hourllava.training.start import UNUSED_ID, load_start
from training.runs import TINY

PRESET = Start.model_validate(TINY)


def changed(**model):
    return Start.model_validate(TINY | {"model": TINY["model"] | model})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny checkpoint without MemAug, as after stage 0, and its weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(1)
    model, processor = load_start(changed(memaug={"num_blocks": 0}))
    save_weights(model.config, model.state_dict(), folder)
    processor.tokenizer.save_pretrained(folder)
    return folder, model.state_dict()


class TestCheckpoint:
    def test_it_is_read_with_the_recipes_changes(self, saved):
        folder, state = saved
        start = Start(checkpoint=str(folder), model={"forgetting": {"temporal": "keyframe"}})
        model, processor = load_start(start)
        assert processor.config.forgetting.temporal == "keyframe"
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())

    def test_memaug_after_stage_0_is_fresh_and_all_else_is_kept(self, saved):
        folder, state = saved
        model, _ = load_start(Start(checkpoint=str(folder), model={"memaug": {"num_blocks": 2}}))
        fresh = set(model.state_dict()) - set(state)
        assert fresh
        assert all(name.startswith("model.memaug.") for name in fresh)
        assert all(torch.equal(state[name], model.state_dict()[name]) for name in state)

    def test_the_model_in_the_package(self):
        state = load_start(Start(checkpoint="nano"))[0].state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in load_nano()[0].state_dict().items())

    def test_memaug_may_begin_anew_with_another_number_of_blocks(self, tmp_path):
        model, processor = load_start(PRESET)
        save_weights(model.config, {name: tensor + 1 for name, tensor in model.state_dict().items()}, tmp_path)
        processor.tokenizer.save_pretrained(tmp_path)
        start = Start(checkpoint=str(tmp_path), fresh_memaug=True, model={"memaug": {"num_blocks": 3}})
        begun = load_start(start)[0].state_dict()
        for name, tensor in begun.items():
            if not name.startswith("model.memaug."):
                assert torch.equal(tensor, model.state_dict()[name] + 1), name
            elif "o_proj" in name or "fc2" in name:
                assert not tensor.any(), name
        assert any(name.startswith("model.memaug.blocks.2.") for name in begun)

    def test_a_checkpoint_that_has_memaug_must_have_all_of_it(self, tmp_path):
        model, processor = load_start(PRESET)
        state = {name: tensor for name, tensor in model.state_dict().items() if ".memaug." not in name}
        save_weights(model.config, state, tmp_path)
        processor.tokenizer.save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match=r"lacks \d+ tensors, first model\.memaug"):
            load_start(Start(checkpoint=str(tmp_path)))

    def test_one_of_another_shape(self, saved):
        with pytest.raises(CheckpointError, match=r"has shape \[32\] in .*makes it \[64\]"):
            load_start(Start(checkpoint=str(saved[0]), model={"text_config": {"hidden_size": 64}}))

    def test_a_dry_run_needs_no_weights(self, saved, tmp_path):
        for path in saved[0].iterdir():
            if path.suffix != ".safetensors":
                (tmp_path / path.name).write_bytes(path.read_bytes())
        model, _ = load_start(Start(checkpoint=str(tmp_path)), meta=True)
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}

    def test_a_missing_one(self, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(CheckpointError, match="there is no folder 'runs/nothing/final'"):
            load_start(Start(checkpoint="runs/nothing/final"))


class TestPreset:
    def test_parts_come_from_their_own_checkpoints(self, tmp_path):
        torch.manual_seed(5)
        theirs = load_start(PRESET)[0].state_dict()
        for part, ours, name in (
            ("decoder", "model.language_model.", "model."),
            ("tower", "model.vision_tower.", "vision_model."),
        ):
            (tmp_path / part).mkdir()
            (tmp_path / part / "config.json").write_text("{}")
            tensors = {name + key.removeprefix(ours): value for key, value in theirs.items() if key.startswith(ours)}
            save_file(tensors | {"text_model.more": torch.zeros(1)}, tmp_path / part / "model.safetensors")
        torch.manual_seed(6)
        start = TINY | {"decoder": str(tmp_path / "decoder"), "vision_tower": str(tmp_path / "tower")}
        model, _ = load_start(Start.model_validate(start))
        for key, tensor in model.state_dict().items():
            taken = key.startswith(("model.language_model.", "model.vision_tower.", "lm_head."))
            assert not taken or torch.equal(tensor, theirs[key]), key
        assert not torch.equal(model.state_dict()["model.image_newline"], theirs["model.image_newline"])

    def test_a_part_of_another_shape(self, saved, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({}))
        save_file({"model.embed_tokens.weight": torch.zeros(5, 5)}, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is of shape \[5, 5\].*needs \[2048, 32\]"):
            load_start(Start.model_validate(TINY | {"decoder": str(tmp_path)}))

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ({"forgeting": {}}, r"start\.model has no setting forgeting; known are .*forgetting"),
            ({"forgetting": {"spacial": 1}}, r"forgetting has no setting spacial"),
            ({"text_config": {"hiden_size": 3}}, r"start\.model\.text_config has no setting hiden_size; .*hidden_size"),
            ({"vision_config": {"patch": 3}}, r"start\.model\.vision_config has no setting patch; .*patch_size"),
            ({"text_config": {"hidden_size": "wide"}}, r"start\.model: .*hidden_size.*expected int, got str"),
            ({"video_grid": 99}, r"video_grid is 99"),
        ],
    )
    def test_a_change_that_is_not_allowed(self, model, message):
        with pytest.raises(ConfigError, match=message) as error:
            load_start(changed(**model), meta=True)
        assert "\n" not in str(error.value)

    def test_no_such_preset(self):
        with pytest.raises(ConfigError, match="there is no preset 'hourllava-5b'; choose one of"):
            load_start(Start.model_validate(TINY | {"preset": "hourllava-5b"}))


class TestTokenizer:
    def save(self, folder, tokens):
        vocabulary = {token: k for k, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
        return Start.model_validate(TINY | {"tokenizer": str(folder)})

    def test_one_without_the_special_tokens(self, tmp_path):
        with pytest.raises(ConfigError, match=r"the tokenizer has no <\|im_start\|> token; use a Qwen2 tokenizer"):
            load_start(self.save(tmp_path, ["?", "word", "<|im_end|>"]), meta=True)

    def test_one_that_is_larger_than_the_vocabulary(self, tmp_path):
        tokens = ["?", "<|im_start|>", "<|im_end|>", *(f"w{k}" for k in range(2046))]
        with pytest.raises(ConfigError, match=r"the tokenizer has 2049 tokens but .* only 2048 rows"):
            load_start(self.save(tmp_path, tokens), meta=True)

    def test_one_with_a_word_for_every_row_needs_another_id_for_visuals(self, tmp_path):
        start = self.save(tmp_path, ["?", "<|im_start|>", "<|im_end|>", *(f"w{k}" for k in range(2045))])
        with pytest.raises(ConfigError, match=r"a word for id 2047, .*set start\.model\.visual_token_id .*-200"):
            load_start(start, meta=True)
        changes = start.model | {"visual_token_id": UNUSED_ID, "forgetting": {}}
        _, processor = load_start(start.model_copy(update={"model": changes}), meta=True)
        video = Video(8.0, frames=torch.zeros(8, 32, 32, 3, dtype=torch.uint8))
        turns = [{"from": "human", "value": "<image>\nw2044"}, {"from": "gpt", "value": "w2044"}]
        sample = processor.encode_record(turns, video=video)
        assert (sample.input_ids == UNUSED_ID).sum() == len(sample.layout.kept_index)
        assert (sample.input_ids == 2047).sum() == 2

    def test_a_missing_one(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(CheckpointError, match=r"there is no tokenizer in .*check start\.tokenizer") as error:
            load_start(Start.model_validate(TINY | {"tokenizer": str(tmp_path)}), meta=True)
        assert "\n" not in str(error.value)
