"""The dry run: exact counts, and plausible estimates."""

import re

import pytest

from hourllava.data.batches.cost import TrainedParts
from hourllava.errors import ConfigError
from hourllava.model.config import HourLlavaConfig
from hourllava.training.estimate import MicroBatchSize, activation_bytes, describe_run, estimate_memory
from hourllava.training.recipe import Recipe
from hourllava.training.run import prepare, train
from hourllava.training.trainer import HourLlavaTrainer
from training.runs import TINY, recipe_of, write_videos

HOUR = MicroBatchSize(tokens=9_004, memory_entries=234_000, views=0)


@pytest.fixture(scope="module")
def recipe(mixture, tmp_path_factory):
    rates = {"*": 1e-3, "model.vision_tower.*": 0}
    out = str(tmp_path_factory.mktemp("run") / "out")
    return Recipe.model_validate(recipe_of(*mixture, out=out, learning_rates=rates))


@pytest.fixture(scope="module")
def prepared(recipe):
    return prepare(recipe, meta=True)


class TestDescription:
    def test_it_tells_what_the_run_will_do(self, prepared):
        text = "\n".join(describe_run(prepared, 2))
        parameters = dict(prepared.model.named_parameters())
        trained = sum(p.numel() for name, p in parameters.items() if ".vision_tower." not in name)
        assert f"parameters  {sum(p.numel() for p in parameters.values()):,}, {trained:,} of them trained" in text
        assert re.search(r"model\.vision_tower\.\* +rate 0 ", text)
        assert re.search(r"images +24 samples of 24, [\d,]+ tokens, the longest sample has \d+", text)
        plan = prepared.corpus.plan
        tokens = sum(int(stream.tokens.sum()) for stream in plan.streams)
        assert f"epoch       48 samples, {tokens:,} tokens" in text
        assert "steps       6 (0 of warm-up) of 2 micro-batches of at most 256 tokens" in text
        assert "balance     2 processes, 1 micro-batches each" in text
        assert re.search(r"time        about \d+ seconds on 2 x ", text)

    def test_nothing_but_lengths_is_written(self, prepared):
        assert [path.name for path in prepared.recipe.out.iterdir()] == ["lengths"]

    @pytest.mark.parametrize(
        ("batch", "warned"),
        [
            (
                {"token_budget": 256, "samples": 1, "multiple_of": 1},
                "batch.samples asks for 1 a step, far less than 1 micro-batch",
            ),
            (
                {"token_budget": 256, "tokens": 100, "multiple_of": 2},
                "batch.tokens asks for 100 a step, far less than 2",
            ),
            (
                {"token_budget": 256, "samples": 1, "multiple_of": 8},
                "batch.samples asks for 1 a step, but a step holds",
            ),
            *(
                pytest.param({"token_budget": 256, "samples": count, "multiple_of": 1}, None, marks=pytest.mark.slow)
                for count in (12, 1000)
            ),
            ({"token_budget": 256, "tokens": 1024, "multiple_of": 2}, None),
        ],
    )
    def test_steps_far_larger_than_asked_for_are_warned_of(self, recipe, tmp_path, batch, warned, monkeypatch, capsys):
        """By the dry run, and by a run before its first step."""
        monkeypatch.setattr(HourLlavaTrainer, "resume_or_start", lambda self, checkpoint: None)
        monkeypatch.setattr(HourLlavaTrainer, "save_final", lambda self: self.recipe.out / "final")
        changed = Recipe.model_validate(
            recipe.model_dump(mode="json", exclude_none=True)
            | {"batch": batch, "out": str(tmp_path), "schedule": {"max_steps": 1}}
        )
        text = "\n".join(describe_run(prepare(changed, meta=True), 1))
        train(changed)
        for told in (text, capsys.readouterr().err):
            assert (f"warning: {warned}" in told) if warned else ("warning" not in told)

    def test_processes_that_cannot_share_a_step(self, prepared):
        with pytest.raises(ConfigError, match="cannot be shared out equally to 3 ranks"):
            list(describe_run(prepared, 3))


class TestMemory:
    def test_what_is_sharded_is_shared_out(self, prepared):
        one, two = estimate_memory(prepared, 1), estimate_memory(prepared, 2)
        numbers = [p.numel() for p in prepared.model.parameters()]
        trained = [p.numel() for p in prepared.model.parameters() if p.requires_grad]
        assert (one.weights, one.gradients, one.optimizer) == (4 * sum(numbers), 4 * sum(trained), 8 * sum(trained))
        assert (two.weights, two.optimizer) == (one.weights / 2, one.optimizer / 2)
        assert two.activations == one.activations

    def test_ddp_shares_nothing(self, recipe):
        prepared = prepare(
            Recipe.model_validate(recipe.model_dump(mode="json") | {"parallel": {"kind": "ddp"}}), meta=True
        )
        assert estimate_memory(prepared, 2) == estimate_memory(prepared, 1)

    def test_activations_grow_with_what_is_kept(self):
        config = HourLlavaConfig.preset("hourllava-3b")
        full, selective, none = (
            activation_bytes(config, HOUR, mode, TrainedParts(), 2) for mode in ("full", "selective", "none")
        )
        assert full < selective < none

    @pytest.mark.parametrize(
        ("preset", "size", "measured_gb"),
        [
            ("hourllava-3b", HOUR, 8.9),
            ("hourllava-3b", MicroBatchSize(tokens=9_004, memory_entries=702_000, views=0), 20.5),
            ("hourllava-7b", HOUR, 12.9),
        ],
    )
    def test_activations_are_near_the_measured_ones(self, preset, size, measured_gb):
        """Measured figures: `What fits` in docs/benchmarks.md (one H100, stage 3, one and three hours as features)."""
        activations = activation_bytes(HourLlavaConfig.preset(preset), size, "selective", TrainedParts(), 2)
        assert activations / 1e9 == pytest.approx(measured_gb, rel=0.2)

    @pytest.mark.parametrize("recall", ["kept", "question"])
    def test_questions_that_share_a_memory_count_it_once(self, recall, tmp_path):
        videos = write_videos(tmp_path / "shards", tmp_path / "media", count=5, turns=3)
        memaug = TINY["model"]["memaug"] | {"recall": recall, "recall_tokens": 7}
        recipe = recipe_of(
            tmp_path, [{"folder": str(videos)}], start={**TINY, "model": {**TINY["model"], "memaug": memaug}}
        )
        recipe["data"]["questions"] = "segments"
        recipe["batch"] = {"token_budget": 2048, "samples": 5, "multiple_of": 1}  # all rows in one micro-batch
        recipe["learning_rates"]["model.vision_tower.*"] = 0
        prepared = prepare(Recipe.model_validate(recipe), meta=True)
        corpus = prepared.corpus
        (micro_batch,) = corpus.plan.step(0)
        assert len(micro_batch) == 5
        samples = [
            sample for draw in micro_batch for sample in corpus.encoder(corpus.datasets[0].row(draw.sample), draw.seed)
        ]
        inputs = corpus.encoder.processor.collate_packed(samples)
        visuals = inputs["visuals"]
        num_tokens, num_answered = inputs["input_ids"].numel(), int((inputs["labels"] != -100).sum())
        size = MicroBatchSize(
            num_tokens,
            visuals.memory_segments.num_tokens,
            0,
            kept_again=num_tokens - num_answered - len(visuals.query_index),
        )
        assert (size.kept_again > 0) == (recall == "question")
        expected = activation_bytes(prepared.model.config, size, "none", TrainedParts(), 4)
        assert estimate_memory(prepared, 1).activations == expected

    def test_a_trained_tower_keeps_activations_of_its_views(self):
        config = HourLlavaConfig.preset("hourllava-3b")
        size = MicroBatchSize(tokens=1000, memory_entries=8000, views=128)
        frozen = activation_bytes(config, size, "full", TrainedParts(), 2)
        trained = activation_bytes(config, size, "full", TrainedParts(vision_tower=True), 2)
        assert trained - frozen > 128 * 729 * 1152 * 26 * 2
