"""The model that training starts from: a checkpoint, or a preset with random weights or another model's parts.

start: {checkpoint: jylins/hourllava-qwen25-3b-s3}
start:
  preset: hourllava-3b                                # projector and MemAug are random
  tokenizer: Qwen/Qwen2.5-3B-Instruct
  decoder: Qwen/Qwen2.5-3B-Instruct
  vision_tower: google/siglip-so400m-patch14-384
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import AutoTokenizer

from hourllava.errors import CheckpointError, ConfigError
from hourllava.model.checkpoint import find_checkpoint, load_model
from hourllava.model.checkpoint_files import read_tensors
from hourllava.model.config import HourLlavaConfig, merge_settings
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import NANO, nano_tokenizer
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.prompt import END, START, special_token_id
from hourllava.training.recipe import Start

DECODER_NAMES = (("model.language_model.", "model."), ("lm_head.", "lm_head."))
VISION_TOWER_NAMES = (("model.vision_tower.", "vision_model."),)
"""(prefix in our model, prefix in a checkpoint of that part alone)"""

UNUSED_ID = -200
"""Suggested id for visual tokens where the tokenizer has a word for every row of the vocabulary; LLaVA's choice."""

logger = logging.getLogger(__name__)


def load_start(start: Start, *, meta: bool = False) -> tuple[HourLlavaForConditionalGeneration, HourLlavaProcessor]:
    """The model that training starts from, in fp32 on the CPU, and its processor.

    Args:
        start: the `start` section of the recipe.
        meta: neither load nor make weights.

    Raises:
        CheckpointError: the checkpoint is missing, or its weights do not fit its configuration with the recipe's
            changes.
        ConfigError: there is no such preset, a change is not allowed, or the tokenizer does not fit the model.
    """
    if start.checkpoint is not None:
        stored = HourLlavaProcessor.from_pretrained(start.checkpoint)
        tokenizer, fields = stored.tokenizer, stored.config.to_dict()
        config = _changed(fields, start.model, lambda: HourLlavaConfig(**merge_settings(fields, start.model)))
    else:
        preset = start.preset
        assert preset is not None
        assert start.tokenizer is not None
        tokenizer, fields = _load_tokenizer(start.tokenizer), HourLlavaConfig.preset(preset).to_dict()
        config = _changed(fields, start.model, lambda: HourLlavaConfig.preset(preset, **start.model))
    processor = HourLlavaProcessor(tokenizer, config)
    _check_tokenizer(processor)
    if meta:
        with torch.device("meta"):
            return HourLlavaForConditionalGeneration(config), processor
    if start.checkpoint is not None:
        model, report = load_model(
            start.checkpoint, dtype=torch.float32, config=config, fresh_memaug=start.fresh_memaug
        )
        logger.info("%s: %s", start.checkpoint, report)
        return model, processor
    model = HourLlavaForConditionalGeneration(config)
    if start.decoder is not None:
        _load_part(model, start.decoder, DECODER_NAMES)
    if start.vision_tower is not None:
        _load_part(model, start.vision_tower, VISION_TOWER_NAMES)
    return model, processor


def _changed(
    fields: Mapping[str, Any], changes: Mapping[str, Any], make: Callable[[], HourLlavaConfig]
) -> HourLlavaConfig:
    """The configuration with a recipe's changes. transformers' classes accept misspelt fields, so names are checked."""
    for place, known, given in (
        ("start.model", fields, changes),
        ("start.model.text_config", fields["text_config"], changes.get("text_config", {})),
        ("start.model.vision_config", fields["vision_config"], changes.get("vision_config", {})),
    ):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(f"{place} has no setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        return make()
    except ConfigError as error:
        raise ConfigError(f"start.model: {error}") from error


def _load_tokenizer(name: str) -> Any:
    if name == NANO:
        return nano_tokenizer()
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:  # transformers' reasons have several lines
        raise CheckpointError(
            f"there is no tokenizer in {name!r}, neither as a folder nor on the hub ({type(error).__name__}); check "
            "start.tokenizer, or the network"
        ) from error


def _check_tokenizer(processor: HourLlavaProcessor) -> None:
    """Refuse a tokenizer without ChatML's tokens, or with a word for the id that stands for visual tokens.

    A prompt with that word is refused, so each training record with it would be skipped. The id is never embedded: it
    needs no row of the vocabulary, only a number that is not a word's.
    """
    for token in (START, END):
        special_token_id(processor.tokenizer, token)
    visual_id = processor.config.visual_token_id
    if visual_id in processor.tokenizer.get_vocab().values():
        raise ConfigError(
            f"the tokenizer has a word for id {visual_id}, which stands for visual tokens; set "
            f"start.model.visual_token_id to the id of no word, such as {UNUSED_ID}"
        )


def _load_part(model: HourLlavaForConditionalGeneration, name: str, prefixes: tuple[tuple[str, str], ...]) -> None:
    """Load a part from its own checkpoint. Other weights of that checkpoint, such as a text tower's, are not used."""
    folder = find_checkpoint(name)
    tensors = read_tensors(folder)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    parameters = {key: tensor for key, tensor in model.state_dict().items() if key not in tied}
    for ours, theirs in prefixes:
        for key, parameter in parameters.items():
            if not key.startswith(ours):
                continue
            stored = theirs + key.removeprefix(ours)
            found = tensors.get(stored)
            if found is None or found.shape != parameter.shape:
                shape = "missing" if found is None else f"of shape {list(found.shape)}"
                raise CheckpointError(
                    f"{stored} is {shape} in {folder}, the preset needs {list(parameter.shape)}; choose the checkpoint "
                    "that the preset was made for"
                )
            parameter.copy_(found)
