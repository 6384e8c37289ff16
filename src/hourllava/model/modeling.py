"""Hour-LLaVA with its language-model head, as a transformers model: loss, logits and `generate`.

    inputs = processor([messages], add_generation_prompt=True)
    model.generate(**inputs)

The batch dictionary of the processor is what `forward` and `generate` take; its visuals are described at
`Visuals.take_from`. Everything below the head is in `hourllava.model.trunk`.

Shapes: B rows, L tokens of a row, N tokens of all rows, R samples with evidence, D decoder width, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, Cache, GenerationMixin

from hourllava.model.batch import VisualBatch
from hourllava.model.config import HourLlavaConfig
from hourllava.model.grounding import Grounding, grounding_loss
from hourllava.model.head import HourLlavaOutput, LanguageModelHead, Targets
from hourllava.model.trunk import HourLlavaModel, HourLlavaPreTrainedModel
from hourllava.model.visuals import Visuals

_TRUNK_OUTPUTS = ("past_key_values", "hidden_states", "attentions")


class HourLlavaForConditionalGeneration(HourLlavaPreTrainedModel, GenerationMixin):
    """Hour-LLaVA with its language-model head: loss, logits and `generate`."""

    def __init__(self, config: HourLlavaConfig) -> None:
        super().__init__(config)
        self.model = HourLlavaModel(config)
        self.lm_head = LanguageModelHead(config.text_config)
        embedding = self.model.get_input_embeddings()
        name = next(name for name, module in self.model.named_modules() if module is embedding)
        self._tied_weights_keys = {"lm_head.weight": f"model.{name}.weight"}
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embedding."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embedding."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language-model head."""
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        grounding_weight: float = 0.0,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> HourLlavaOutput:
        """Logits; or, if labels are given, the loss without logits, which are then never all made.

        Args:
            labels: [B, L] token ids, -100 where nothing is supervised. The loss is the mean over supervised tokens.
            label_weights: [B, L] of the labels, 0 where nothing is supervised: a weighted mean instead.
            grounding_weight: of each sample's `grounding_loss` against a token's loss, if the batch has evidence.
            logits_to_keep: the number of last positions that get logits (0: all), or the positions themselves.
            num_items_in_batch: supervised tokens (their weight) to take the mean over, if this is part of a larger one.
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache: as in transformers.
            **kwargs: visuals, see `Visuals.take_from`; `segments`, the lengths of the samples packed into the one row
                of the batch, of which the first label each must be -100; everything else goes to the decoder.
        """
        targets = grounding = None
        if labels is not None:
            use_cache = bool(use_cache)  # a pass that gives a loss needs no keys and values later
            grounding = self._grounding(kwargs.get("visuals")) if grounding_weight else None
            targets = Targets.of(labels, label_weights)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            observe=grounding.observe if grounding else None,
            **kwargs,
        )
        hidden_BLD = output.last_hidden_state
        results: dict[str, Any] = {name: output[name] for name in _TRUNK_OUTPUTS if name in output}
        if targets is None:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            results["logits"] = self.lm_head(hidden_BLD[:, kept])
        else:
            losses_N = self.lm_head(hidden_BLD.flatten(0, 1), targets)
            results["target_losses"] = losses_N.detach()
            total = (losses_N * targets.weights_N).sum()
            if grounding is not None:
                shares_R = grounding.shares()
                results["evidence_shares"] = shares_R.detach()
                total = total + grounding_weight * grounding_loss(shares_R).sum()
            num_targets = targets.weights_N.sum() if num_items_in_batch is None else num_items_in_batch
            loss = total / torch.as_tensor(num_targets).clamp(min=1)
            results["loss"] = loss + self._nothing_of_unused_parameters(kwargs) if self.training else loss
        return HourLlavaOutput(**results)

    def _grounding(self, layouts: VisualBatch | None) -> Grounding | None:
        if layouts is None or layouts.evidence is None or not self.model.memaug.blocks:
            return None
        return Grounding(layouts.evidence, layouts.memory_segments)

    def _nothing_of_unused_parameters(self, inputs: Mapping[str, Any]) -> Tensor | int:
        """Zero, with a gradient for each trainable parameter that a batch does not use: other ranks wait for one."""
        model = self.model
        has_pixels = any(inputs.get(name) is not None for name in ("pixel_values", "pixel_values_videos"))
        parts: list[nn.Module] = [] if has_pixels else [model.vision_tower]
        unused: list[nn.Parameter] = []
        if inputs.get("visuals") is None:
            unused.append(model.image_newline)
            parts += [model.multi_modal_projector, model.memaug]
        unused += [parameter for part in parts for parameter in part.parameters()]
        return sum(parameter.sum() for parameter in unused if parameter.requires_grad) * 0

    @torch.no_grad()
    def generate(self, input_ids: Tensor, **kwargs: Any) -> Any:
        """transformers' `generate`; MemAug looks into the memory once, before the first token.

        Args:
            input_ids: [B, L], padded on the left.
            **kwargs: visuals, see `Visuals.take_from`; and as in transformers `attention_mask`, `max_new_tokens`,
                `streamer`, ...

        Returns:
            what transformers returns: [B, L + new tokens] token ids by default.
        """
        inputs_embeds = self.model.embed(input_ids, Visuals.take_from(kwargs))
        return super().generate(input_ids, inputs_embeds=inputs_embeds, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """transformers' step. Without a cache every step needs the augmented prompt again, not only the first.

        A generated token is text, also where the vocabulary has a word of its own for `visual_token_id`.
        """
        if inputs_embeds is not None and not is_first_iteration and not use_cache:
            new_ids = input_ids[:, inputs_embeds.shape[1] :]
            inputs_embeds = torch.cat([inputs_embeds, self.get_input_embeddings()(new_ids)], dim=1)
            is_first_iteration = True
        prepared: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            use_cache=use_cache,
            **kwargs,
        )
        if prepared.get("inputs_embeds") is None and not is_first_iteration:
            prepared["inputs_embeds"] = self.get_input_embeddings()(prepared["input_ids"])
            prepared["input_ids"] = None
        return prepared


AutoConfig.register("hourllava", HourLlavaConfig, exist_ok=True)
AutoModel.register(HourLlavaConfig, HourLlavaModel, exist_ok=True)
AutoModelForImageTextToText.register(HourLlavaConfig, HourLlavaForConditionalGeneration, exist_ok=True)
