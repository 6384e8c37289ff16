"""Learning rates by name pattern: the groups they make, and the weights that a run changes."""

import pytest
import torch
from safetensors.torch import load_file

from conftest import tiny_config, tiny_model
from hourllava.errors import ConfigError
from hourllava.training.groups import freeze_and_group, optimizer_groups
from hourllava.training.recipe import Recipe
from hourllava.training.run import train
from hourllava.training.start import load_start
from training.runs import recipe_of

STAGE_3 = {"*": 2e-5, "model.vision_tower.*": 0, "model.memaug.*": 1e-4}


class TestPatterns:
    def test_the_last_pattern_that_fits_decides(self):
        model = tiny_model()
        groups = freeze_and_group(model, STAGE_3)
        names = {group.pattern: group.names for group in groups}
        assert all(name.startswith("model.memaug.") for name in names["model.memaug.*"])
        assert not any(name.startswith(("model.memaug.", "model.vision_tower.")) for name in names["*"])
        assert sum(group.num_parameters for group in groups) == sum(p.numel() for p in model.parameters())
        trained = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
        assert "vision_tower" not in trained
        assert {"memaug", "language_model", "multi_modal_projector", "image_newline"} <= trained

    def test_the_bypassed_norm_of_the_tower_is_never_trained(self):
        model = tiny_model()
        freeze_and_group(model, {"*": 1e-4})
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert frozen
        assert all("post_layernorm" in name for name in frozen)

    def test_vectors_do_not_decay(self):
        model = tiny_model()
        groups = optimizer_groups(model, freeze_and_group(model, STAGE_3), weight_decay=0.1)
        assert {(group["lr"], group["weight_decay"]) for group in groups} == {
            (2e-5, 0.1), (2e-5, 0.0), (1e-4, 0.1), (1e-4, 0.0),
        }  # fmt: skip
        assert all(p.ndim > 1 for group in groups if group["weight_decay"] for p in group["params"])
        assert all(p.ndim == 1 for group in groups if not group["weight_decay"] for p in group["params"])

    @pytest.mark.parametrize(
        ("rates", "message"),
        [
            ({"*": 0, "model.memaugg.*": 1e-4}, r"'model\.memaugg\.\*'.*matches.*parts of this model: .*model\.memaug"),
            ({"model.memaug.*": 1e-4, "*": 1e-5}, r"'model\.memaug\.\*' applies to no parameter.*a later pattern"),
            ({"model.memaug.*": 1e-4}, r"have no pattern for model\.image_newline; add .*\"\*\": 0"),
            ({"*": 0}, r"freeze everything"),
        ],
    )
    def test_wrong_patterns(self, rates, message):
        with pytest.raises(ConfigError, match=message):
            freeze_and_group(tiny_model(tiny_config()), rates)


@pytest.mark.parametrize(
    ("rates", "changed_parts"),
    [
        ({"*": 0, "model.memaug.*": 1e-2}, {"memaug"}),
        (
            {"*": 1e-2, "model.vision_tower.*": 0},
            {"memaug", "language_model", "multi_modal_projector", "image_newline"},
        ),
        ({"*": 0, "model.vision_tower.*": 1e-2}, {"vision_tower"}),
    ],
    ids=["stage 1", "stage 3", "vision tower only"],
)
def test_two_steps_change_what_is_trained_and_nothing_else(mixture, tmp_path, rates, changed_parts):
    root, folders = mixture
    recipe = Recipe.model_validate(
        recipe_of(root, folders, out=str(tmp_path / "out"), learning_rates=rates, schedule={"max_steps": 2})
    )
    train(recipe)
    torch.manual_seed(recipe.seed)
    before = load_start(recipe.start)[0].state_dict()
    after = load_file(tmp_path / "out" / "final" / "model.safetensors")
    assert set(before) - set(after) <= {"lm_head.weight"}  # tied
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name.split(".")[1] for name in changed} == changed_parts
    used = {name for name in after if name.split(".")[1] in changed_parts and "post_layernorm" not in name}
    # A key's bias adds the same to all scores of a query, so its gradient is zero except for rounding.
    assert {name for name in used - changed if not name.endswith("k_proj.bias")} == set()
