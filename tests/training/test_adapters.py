"""Low-rank adapters: only they are trained, they are merged into the weights, and their runs resume exactly."""

import builtins
import copy
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader

from conftest import tiny_model
from hourllava.errors import ConfigError
from hourllava.training import adapters as adapters_module
from hourllava.training import checkpoints as checkpoint_files
from hourllava.training.adapters import add_adapters, merged, share_lost_in_bf16
from hourllava.training.checkpoints import gather_weights
from hourllava.training.export import export_model
from hourllava.training.groups import freeze_and_group
from hourllava.training.recipe import LoraRecipe, Recipe, load_recipe
from hourllava.training.run import prepare, train
from hourllava.training.start import load_start
from training.runs import DEEP, recipe_of

RATES = {"*": 0, "*.lora_*": 1e-2}
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def recipe(mixture, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("run") / "out")
    content = recipe_of(*mixture, out=out, start=DEEP, learning_rates=RATES, lora={"rank": 4, "alpha": 8})
    return Recipe.model_validate(content | {"schedule": {"epochs": 3, "max_steps": 4}})


@pytest.fixture(scope="module")
def trained(recipe):
    train(recipe)
    return load_file(recipe.out / "final" / WEIGHTS)


def adapted(model):
    return {name for name, module in model.named_modules() if hasattr(module, "lora_A")}


class TestAdapters:
    def test_by_default_they_sit_on_the_decoders_layers(self):
        model = tiny_model()
        add_adapters(model, LoraRecipe())
        assert len(adapted(model)) == 2 * 7  # layers, projections of each
        assert all(name.startswith("model.language_model.layers.") for name in adapted(model))

    def test_they_may_sit_on_any_linear_layer(self):
        model = tiny_model()
        add_adapters(model, LoraRecipe(targets=r"model\.memaug\..*cross_attn\.q_proj", rank=2))
        assert adapted(model) == {f"model.memaug.blocks.{k}.cross_attn.q_proj" for k in range(4)}

    def test_merging_is_pefts_own(self):
        model = tiny_model()
        base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        add_adapters(model, LoraRecipe(rank=3, alpha=12))
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                torch.nn.init.normal_(parameter)
        ours = merged(model, model.state_dict())
        layers = adapted(model)
        modules = dict(model.named_modules())
        for name in layers:
            modules[name].merge()
            torch.testing.assert_close(ours[f"{name}.weight"], modules[name].base_layer.weight, rtol=1e-5, atol=1e-5)
        assert set(ours) == set(base)
        changed = {name for name in base if not torch.equal(ours[name], base[name])}
        assert changed == {f"{name}.weight" for name in layers}

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ("lm_head", "matches lm_head, which is an embedding or the head"),
            (r".*", r"which is an embedding or the head|shares its weight"),
            (r"(lm_head|.*q_proj)", "matches lm_head"),
            (r"model\.language_model\.embed_tokens", "embed_tokens, which is an embedding or the head"),
            (r".*embed_tokens|.*up_proj", "embed_tokens, which is an embedding"),
        ],
    )
    @pytest.mark.parametrize("tied", [False, True])
    def test_the_head_and_embeddings_cannot_have_them(self, targets, message, tied):
        model = tiny_model()
        if tied:
            model.lm_head.weight = model.model.language_model.embed_tokens.weight
            message += "|shares its weight with"
        with pytest.raises(ConfigError, match=message) as error:
            add_adapters(model, LoraRecipe(targets=targets))
        assert "\n" not in str(error.value)
        assert not adapted(model)

    def test_neither_can_layers_that_share_their_weight(self):
        model = tiny_model()
        layers = model.model.language_model.layers
        layers[1].self_attn.q_proj.weight = layers[0].self_attn.q_proj.weight
        with pytest.raises(
            ConfigError, match=r"layers\.0\.self_attn\.q_proj, which shares its weight with .*layers\.1"
        ):
            add_adapters(model, LoraRecipe())

    def test_no_layer_fits(self):
        with pytest.raises(ConfigError, match=r"lora\.targets 'nothing' matches no linear layer; this model has"):
            add_adapters(tiny_model(), LoraRecipe(targets="nothing"))

    def test_peft_is_not_installed(self, monkeypatch):
        genuine = builtins.__import__

        def without_peft(name, *args, **kwargs):
            if name == "peft":
                raise ImportError(name)
            return genuine(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_peft)
        with pytest.raises(ConfigError, match=r"pip install 'hourllava\[lora\]'"):
            adapters_module.add_adapters(tiny_model(), LoraRecipe())


class TestRun:
    def test_only_adapters_are_trained(self, recipe):
        prepared = prepare(recipe, meta=True)
        names = {name for name, parameter in prepared.model.named_parameters() if parameter.requires_grad}
        assert names
        assert all(".lora_" in name for name in names)

    def test_the_trained_model_differs_from_its_start_in_the_adapted_layers_only(self, recipe, trained):
        torch.manual_seed(recipe.seed)
        before = load_start(recipe.start)[0].state_dict()
        assert not set(trained) - set(before)
        changed = {name for name in trained if not torch.equal(before[name], trained[name])}
        expected = {
            f"model.language_model.layers.{layer}.{part}_proj.weight"
            for layer in range(2)
            for part in (*(f"self_attn.{p}" for p in "qkvo"), "mlp.gate", "mlp.up", "mlp.down")
        }
        assert changed == expected
        change = (
            trained["model.language_model.layers.0.mlp.up_proj.weight"]
            - (before["model.language_model.layers.0.mlp.up_proj.weight"])
        )
        assert int((torch.linalg.svdvals(change) > 1e-5).sum()) <= 4  # its rank is the adapters'

    def test_a_run_goes_on_to_the_same_weights(self, recipe, trained, tmp_path):
        shutil.copytree(recipe.out / "checkpoint-2", tmp_path / "checkpoint-2")
        train(recipe.model_copy(update={"out": tmp_path}))
        again = load_file(tmp_path / "final" / WEIGHTS)
        assert all(torch.equal(again[name], trained[name]) for name in trained)

    def test_a_checkpoint_keeps_the_state_of_trained_parameters_only(self, recipe, trained):
        kept = FileSystemReader(recipe.out / "checkpoint-4" / "state").read_metadata().state_dict_metadata
        tensors = [name for name in kept if name.startswith("model.model.")]
        assert tensors
        assert all(".lora_" in name for name in tensors)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks transformers for it
    @pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
    def test_what_they_have_learnt_is_all_in_the_model(self, recipe, tmp_path, precision, capsys):
        """The merged weights are those that peft makes of the saved adapters and the start."""
        rates = {"*": 0, "*.lora_*": 1e-4}
        changes = {"precision": precision, "out": tmp_path / "run", "learning_rates": rates}
        changes["schedule"] = recipe.schedule.model_copy(update={"max_steps": 2})
        changed = recipe.model_copy(update=changes)
        train(changed)
        export_model(str(tmp_path / "run" / "final"), tmp_path / "given")
        torch.manual_seed(changed.seed)
        start = load_start(changed.start)[0]
        begun = {name: tensor.clone() for name, tensor in start.state_dict().items()}
        for folder in (tmp_path / "run" / "final", tmp_path / "given"):
            start.load_state_dict(begun)
            again = PeftModel.from_pretrained(copy.deepcopy(start), folder / "adapter").merge_and_unload().state_dict()
            written = load_file(folder / WEIGHTS)
            assert {tensor.dtype for tensor in written.values()} == {torch.float32}
            num_changed = 0
            for name, tensor in written.items():
                torch.testing.assert_close(tensor, again[name], atol=1e-7, rtol=1e-6)
                num_changed += not torch.equal(tensor, begun[name])
            assert num_changed == 14
        assert "bf16 weights would lose" in capsys.readouterr().err

    def test_what_bf16_would_lose_is_told(self):
        base = torch.ones(4, 4)
        weights = {"x.base_layer.weight": base, "y.weight": base}
        for change, share in (
            (2.0**-12, 1.0),
            (2.0**-7, 0.0),
            (0.0, 0.0),
        ):  # below the resolution of bf16, and within it
            assert share_lost_in_bf16(weights, {"x.weight": base + change, "y.weight": base}) == pytest.approx(share)

    def test_what_is_gathered_owns_what_is_written(self, monkeypatch):
        """FSDP pads a matrix of 5 rows on 2 processes to 6 rows when it gathers it."""
        gathered = {"x": torch.ones(6, 4)[:5], "y": torch.ones(4, 6).T, "z": torch.ones(4)}
        monkeypatch.setattr(checkpoint_files, "get_model_state_dict", lambda model, options: gathered)
        for name, tensor in gather_weights(torch.nn.Linear(1, 1)).items():
            assert torch.equal(tensor, gathered[name])
            assert tensor.untyped_storage().nbytes() == tensor.nbytes

    def test_adapters_that_nothing_trains(self, recipe):
        with pytest.raises(ConfigError, match=r'learning_rates freeze them; add a pattern such as "\*\.lora_\*"'):
            prepare(recipe.model_copy(update={"learning_rates": {"*": 0, "model.memaug.*": 1e-3}}), meta=True)

    def test_grounding_needs_more_than_the_decoder(self, recipe, tmp_path):
        grounded = {"data": recipe.data.model_copy(update={"grounding_weight": 1.0}), "out": tmp_path}
        with pytest.raises(ConfigError, match="only the decoder behind it is trained"):
            prepare(recipe.model_copy(update=grounded), meta=True)
        lora = LoraRecipe(targets=r"model\.(language_model|memaug)\..*_proj")
        assert prepare(recipe.model_copy(update=grounded | {"lora": lora}), meta=True)

    def test_the_shipped_recipe_trains_adapters_only(self):
        recipe = load_recipe("recipes/finetune-lora.yaml")
        model = tiny_model()
        add_adapters(model, recipe.lora)
        freeze_and_group(model, recipe.learning_rates)
        assert all(p.requires_grad == (".lora_" in name) for name, p in model.named_parameters())
