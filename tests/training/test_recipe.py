"""Recipes: the shipped ones match the publication, and a wrong one gets a helpful line."""

import itertools
import re

import pytest

from hourllava.errors import ConfigError
from hourllava.model.config import HourLlavaConfig
from hourllava.model.layout import num_kept_video_tokens
from hourllava.training.recipe import load_recipe, recipe_text, shipped_recipes
from training.runs import TINY, write_recipe

SHARDS = "data/VideoMarathon/sharding/hourllava_"

# facts: start; streams; samples a step; rates of vision tower, projector, MemAug, decoder.
PUBLISHED = {
    "hourllava-3b/s1": ("jylins/llava-onevision-qwen25-3b-si", ["s1/0"], 128, (0, 0, 1e-4, 0)),
    "hourllava-3b/s2": ("jylins/hourllava-qwen25-3b-s1", ["s2/0"], 128, (5e-6, 1e-4, 1e-4, 2e-5)),
    "hourllava-3b/s3": ("jylins/hourllava-qwen25-3b-s2", ["s3/0", "s3/1"], 128, (0, 1e-4, 1e-4, 2e-5)),
    "hourllava-7b/s1": ("lmms-lab/llava-onevision-qwen2-7b-si", ["s1/0"], 128, (0, 0, 1e-4, 0)),
    "hourllava-7b/s2": ("jylins/hourllava-qwen2-7b-s1", ["s2/0"], 128, (5e-6, 1e-4, 1e-4, 1e-5)),
    "hourllava-7b/s3": ("jylins/hourllava-qwen2-7b-s2", ["s3/0", "s3/1"], 256, (0, 1e-4, 1e-4, 2e-5)),
}
PARTS = (
    "model.vision_tower.encoder.layers.0.mlp.fc1.weight",
    "model.multi_modal_projector.linear_1.weight",
    "model.memaug.blocks.0.mlp.fc1.weight",
    "model.language_model.layers.0.mlp.up_proj.weight",
)


def rate_of(recipe, name):
    """The rate of the last matching pattern."""
    fitting = [
        rate for pattern, rate in recipe.learning_rates.items() if re.fullmatch(pattern.replace("*", ".*"), name)
    ]
    return fitting[-1]


class TestShipped:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_the_published_stages_are_as_published(self, name):
        checkpoint, folders, samples, rates = PUBLISHED[name]
        recipe = load_recipe(f"recipes/{name}.yaml")
        assert recipe.start.checkpoint == checkpoint
        assert [stream.folder for stream in recipe.data.streams] == [SHARDS + folder for folder in folders]
        assert recipe.data.batching == ("per_stream" if len(folders) > 1 else "mixed")
        assert recipe.batch.samples == samples
        assert tuple(rate_of(recipe, part) for part in PARTS) == rates
        assert recipe.batch.token_budget == recipe.start.model["max_sequence_tokens"] == 32768
        assert recipe.start.model["forgetting"] == {
            "spatial": "random", "spatial_keep_ratio": 0.25, "temporal": "uniform", "temporal_keep_ratio": 0.25,
        }  # fmt: skip
        schedule = recipe.schedule
        assert (schedule.kind, schedule.warmup, schedule.epochs, schedule.max_steps) == ("cosine", 0.03, 1, None)
        assert recipe.optimizer.weight_decay == 0
        assert (recipe.precision, recipe.data.labels, recipe.data.questions) == ("bf16", "llava", "conversation")
        assert recipe.activations != "none"
        assert str(recipe.data.media) == "data"
        assert recipe.lora is None

    @pytest.mark.parametrize("family", ["hourllava-3b", "hourllava-7b"])
    def test_stage_4_is_stage_3_with_recall_tokens_for_each_question(self, family):
        before, recipe = (load_recipe(f"recipes/{family}/s{stage}.yaml") for stage in (3, 4))
        assert recipe.start.checkpoint == before.start.checkpoint.replace("-s2", "-s3")
        assert (recipe.data.streams, recipe.data.batching) == (before.data.streams, before.data.batching)
        assert (recipe.learning_rates, recipe.batch.samples) == (before.learning_rates, before.batch.samples)
        assert recipe.data.questions == "segments"
        config = HourLlavaConfig.preset(family, **recipe.start.model)
        assert config.memaug.num_recall_tokens == 64
        five_about_an_hour = 5 * (num_kept_video_tokens(3600, config) + 64)  # a record of the published mixture
        assert recipe.batch.token_budget > five_about_an_hour + 4000

    def test_stage_0_of_3b_is_an_image_model_made_of_its_parts(self):
        recipe = load_recipe("recipes/hourllava-3b/s0.yaml")
        config = HourLlavaConfig.preset(recipe.start.preset, **recipe.start.model)
        assert config.memaug.num_blocks == 0
        assert config.forgetting.spatial_keep_ratio == 1.0
        assert recipe.start.decoder == "Qwen/Qwen2.5-3B-Instruct"

    @pytest.mark.parametrize("family", ["hourllava-nano"])
    def test_the_stages_of_nano_go_on_from_each_other(self, family):
        recipes = [load_recipe(f"recipes/{family}/s{stage}.yaml") for stage in range(5)]
        assert recipes[0].start.preset == family
        for before, after in itertools.pairwise(recipes):
            assert after.start.checkpoint == f"{before.out}/final"

    @pytest.mark.parametrize("path", shipped_recipes())
    def test_every_shipped_recipe_loads_and_is_written_back_the_same(self, path, tmp_path):
        recipe = load_recipe(path)
        (tmp_path / "again.yaml").write_text(recipe_text(recipe))
        assert load_recipe(tmp_path / "again.yaml") == recipe
        assert str(recipe.out).startswith("runs/")

    def test_all_of_them_are_listed(self):
        ours = {f"recipes/hourllava-{name}.yaml" for name in ("3b/s0", "3b/s4", "7b/s4")}
        stages = {f"recipes/{name}.yaml" for name in PUBLISHED} | ours
        nano = {f"recipes/hourllava-nano/{name}.yaml" for name in ("s0", "s1", "s2", "s3", "s4", "ablation")}
        tuning = {"recipes/finetune.yaml", "recipes/finetune-lora.yaml"}
        assert set(shipped_recipes()) == stages | nano | tuning


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (3, 3), (4, 4), (64, 4)])
def test_workers_are_no_more_than_cores_unless_the_recipe_says_so(cores, workers, monkeypatch):
    monkeypatch.setattr("hourllava.training.recipe.usable_cores", lambda: cores)
    assert load_recipe("recipes/finetune.yaml").data.workers == workers
    assert load_recipe("recipes/finetune.yaml", ["data.workers=9"]).data.workers == 9


class TestMerging:
    @pytest.fixture
    def base(self, tmp_path):
        base = {
            "out": "run",
            "start": TINY,
            "data": {"streams": [{"folder": "a"}]},
            "batch": {"samples": 8},
            "learning_rates": {"*": 1e-3, "model.memaug.*": 1e-4},
        }
        return write_recipe(tmp_path / "base.yaml", base)

    def test_mappings_are_merged_and_rates_replaced(self, base):
        child = base.with_name("child.yaml")
        child.write_text('base: base.yaml\nbatch: {token_budget: 64}\nlearning_rates: {"*": 2e-5}\n')
        recipe = load_recipe(child)
        assert (recipe.batch.samples, recipe.batch.token_budget) == (8, 64)
        assert recipe.learning_rates == {"*": 2e-5}

    def test_later_bases_win_and_the_command_line_wins_over_all(self, base):
        base.with_name("other.yaml").write_text("batch: {token_budget: 64}\nseed: 3\n")
        child = base.with_name("child.yaml")
        child.write_text("base: [base.yaml, other.yaml]\nseed: 4\n")
        recipe = load_recipe(child, ["batch.token_budget=128", "data.streams=[{folder: b, repeat: 0.5}]"])
        assert (recipe.seed, recipe.batch.token_budget) == (4, 128)
        assert [(stream.folder, stream.repeat) for stream in recipe.data.streams] == [("b", 0.5)]

    def test_a_base_may_be_a_shipped_one(self, tmp_path):
        mine = tmp_path / "mine.yaml"
        mine.write_text("base: recipes/finetune-lora.yaml\nout: here\n")
        assert load_recipe(mine).lora.rank == 16

    def test_numbers_with_an_exponent_are_numbers_everywhere(self, base):
        recipe = load_recipe(base, ["start.model.text_config.rms_norm_eps=1e-5"])
        assert recipe.start.model["text_config"]["rms_norm_eps"] == 1e-5

    def test_a_ring_of_bases(self, tmp_path):
        (tmp_path / "a.yaml").write_text("base: b.yaml\n")
        (tmp_path / "b.yaml").write_text("base: a.yaml\n")
        with pytest.raises(ConfigError, match="own base"):
            load_recipe(tmp_path / "a.yaml")


class TestWrong:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("bacth.samples=3", r"bacth is not a setting; known are out, start, .*batch"),
            ("batch.sample=3", r"batch\.sample is not a setting; known are token_budget, samples, tokens, multiple_of"),
            ("lora.rnk=3", r"lora\.rnk is not a setting; known are targets, rank, alpha"),
            (
                "data.streams=[{folder: a, repet: 2}]",
                r"data\.streams\.0\.repet is not a setting; known are folder, name, .*repeat",
            ),
            ("schedule.kind=cos", r"schedule\.kind: Input should be 'cosine', 'linear' or 'constant', got 'cos'"),
            ("batch.samples=many", r"batch\.samples: .*got 'many'"),
            ("batch.tokens=100", r"batch: give samples or tokens, one of the two"),
            ("learning_rates={'*': -1}", r"learning_rates\.\*: .*greater than or equal to 0, got -1"),
            ("start.tokenizer=nano", r"a preset needs a tokenizer; a checkpoint has its own"),
            ("start.decoder=Qwen/Qwen2.5-3B-Instruct", r"go with a preset"),
            ("start.preset=hourllava-3b", r"start: give a checkpoint or a preset"),
            ("seed", r"--set 'seed'; give key=value"),
            ("seed=[1", r"--set seed=\[1 is no YAML"),
        ],
    )
    def test_a_setting(self, override, message):
        with pytest.raises(ConfigError, match=message) as error:
            load_recipe("recipes/finetune-lora.yaml", [override])
        assert "\n" not in str(error.value)

    def test_a_preset_without_a_tokenizer(self, tmp_path):
        path = write_recipe(
            tmp_path / "r.yaml", {"base": "recipes/hourllava-nano/s0.yaml", "start": {"tokenizer": None}}
        )
        with pytest.raises(ConfigError, match="a preset needs a tokenizer"):
            load_recipe(path)

    def test_a_preset_has_no_memaug_to_leave_aside(self):
        with pytest.raises(ConfigError, match="fresh_memaug goes with a checkpoint"):
            load_recipe("recipes/hourllava-nano/s0.yaml", ["start.fresh_memaug=true"])

    def test_a_missing_setting(self, tmp_path):
        path = write_recipe(tmp_path / "r.yaml", {"out": "x", "start": TINY, "batch": {"samples": 1}})
        with pytest.raises(ConfigError, match=r"data is missing; learning_rates is missing"):
            load_recipe(path)

    def test_a_misspelt_name_is_told_the_nearest(self):
        with pytest.raises(ConfigError, match=r"did you mean recipes/hourllava-7b/s3\.yaml\?"):
            load_recipe("recipes/hourlava-7b/s3.yaml")

    @pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "just words\n"])
    def test_a_file_that_is_no_recipe(self, tmp_path, text):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"mapping|no YAML") as error:
            load_recipe(tmp_path / "r.yaml")
        assert "\n" not in str(error.value)
