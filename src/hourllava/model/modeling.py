"""Hour-LLaVA as a transformers model: vision tower, projector, memory, MemAug, decoder.

    frames or images -> patch features -> projected patch tokens -> memory (keys and values for MemAug) + kept tokens
    prompt with kept tokens -> MemAug looks into the memory -> prompt with augmented tokens -> decoder

The visual part of a prompt is as long as its layout says before anything is computed (`hourllava.model.layout`), so
padded batches, packed batches and `generate` need no special cases: `embed` makes the decoder's input, everything after
it is an ordinary language model.

Shapes: B rows, L tokens of a row, N views or frames, P patch tokens, M memory entries, K kept tokens, C tower width,
D decoder width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    Cache,
    GenerationMixin,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

from hourllava.errors import InputError
from hourllava.model.attention import PACKED_ATTENTION, Segments, cut_into_chunks, packed_positions
from hourllava.model.batch import VisualBatch
from hourllava.model.config import HourLlavaConfig
from hourllava.model.grounding import Grounding, grounding_loss
from hourllava.model.head import HourLlavaOutput, LanguageModelHead, Targets
from hourllava.model.memaug import MemAug, MemoryKeysValues, ProjectedMemory, QueryObserver, ResidualOutput
from hourllava.model.norms import fuse_norms
from hourllava.model.vision import (
    MultiModalProjector,
    build_vision_tower,
    flat_features,
    normalised,
    patch_features,
    pool_features,
    resize_grid,
)


class HourLlavaPreTrainedModel(PreTrainedModel):
    """What the classes below share with transformers."""

    config_class = HourLlavaConfig
    config: HourLlavaConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ("MemAugBlock",)
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HourLlavaModel):
            initialization.normal_(module.image_newline, std=self.config.text_config.hidden_size**-0.5)
        if isinstance(module, ResidualOutput):
            initialization.zeros_(module.weight)


class HourLlavaModel(HourLlavaPreTrainedModel):
    """Everything but the language-model head."""

    def __init__(self, config: HourLlavaConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_tower = build_vision_tower(config)
        self.multi_modal_projector = MultiModalProjector(config.vision_feature_width, width)
        self.image_newline = nn.Parameter(torch.empty(width))
        self.memaug = MemAug(config)
        self.language_model = AutoModel.from_config(config.text_config, attn_implementation=PACKED_ATTENTION)
        fuse_norms(self.language_model)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embedding."""
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embedding."""
        self.language_model.set_input_embeddings(value)

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Features of image views, bytes or normalised: [N, 3, H, W] -> [N, g * g, C], in `pooler_output`."""
        return BaseModelOutputWithPooling(pooler_output=patch_features(self.vision_tower, pixel_values, self.config))

    def get_video_features(self, pixel_values_videos: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """The same of video frames, pooled: [N, 3, H, W] -> [N, grid * grid, C], in `pooler_output`."""
        features = patch_features(self.vision_tower, pixel_values_videos, self.config)
        return BaseModelOutputWithPooling(pooler_output=pool_features(features, self.config.video_grid))

    def token_bank(self, features: Sequence[Tensor], visuals: VisualBatch) -> Tensor:
        """All tokens a memory can be made of.

        Args:
            features: patch features [N, tokens, C] of images, then of videos.
            visuals: layouts of the batch.

        Returns:
            [P + resized + 1, D]: projected patch tokens, resized tile grids, the newline.

        Raises:
            InputError: there are more or fewer patch tokens than the layouts speak of.
        """
        flat_PC = flat_features(features) if features else self.image_newline.new_empty(0)
        expected = visuals.num_image_tokens + visuals.num_video_tokens
        if flat_PC.shape[0] != expected:
            raise InputError(
                f"got {flat_PC.shape[0]} patch tokens for layouts that speak of {expected}; give the features the "
                "layouts were made for, frames of all videos one after the other"
            )
        tokens_PD = self.multi_modal_projector(flat_PC.to(self.image_newline))
        parts = [tokens_PD]
        for resize in visuals.resizes:
            source = torch.from_numpy(resize.source_index).to(tokens_PD.device)
            grid = tokens_PD[source].unflatten(0, (1, resize.height, resize.width))
            parts.append(resize_grid(grid, resize.new_height, resize.new_width).flatten(0, 2))
        return torch.cat([*parts, self.image_newline[None]])

    def remember(
        self,
        features: Sequence[Tensor],
        visuals: VisualBatch,
        *,
        entries_per_chunk: int | None = None,
        storage: torch.device | str | None = None,
    ) -> ProjectedMemory:
        """Project features into a memory; nothing in it depends on a question.

        Args:
            features: patch features [N, tokens, C] of images, then of videos.
            visuals: layouts of the batch.
            entries_per_chunk: make keys and values for this many memory entries at a time; for a single video whose
                projected tokens do not fit at once. The features may then lie on the CPU.
            storage: keep the chunks apart, on this device, to be attended one by one; joined where they are made if
                None.

        Returns:
            keys and values for every MemAug block, and the kept tokens.
        """
        if entries_per_chunk is None:
            bank = self.token_bank(features, visuals)
            keys_values = self.memaug.keys_values(bank, visuals.memory_index, visuals.memory_positions)
            return ProjectedMemory(keys_values, F.embedding(visuals.kept_index, bank))

        assert not visuals.resizes, "only videos are long enough for chunks"
        flat_PC = flat_features(features)
        num_entries = visuals.memory_index.shape[0]
        keys_values = [MemoryKeysValues([], []) for _ in self.memaug.blocks]
        for chunk in cut_into_chunks(num_entries, entries_per_chunk):
            tokens, index = self._tokens_of(flat_PC, visuals.memory_index[chunk], visuals.newline_index)
            parts = self.memaug.keys_values(tokens, index, visuals.memory_positions[chunk])
            for block, part in zip(keys_values, parts):
                if storage is not None:
                    block.append(part.to(storage))
                    continue
                if not block.keys:  # room for all, so that chunks and the whole are never held together
                    block.append(part.room_for(num_entries))
                block.keys[0][chunk], block.values[0][chunk] = part.keys[0], part.values[0]
        return ProjectedMemory(keys_values, self.kept_tokens(features, visuals))

    def kept_tokens(self, features: Sequence[Tensor], visuals: VisualBatch) -> Tensor:
        """[K, D] the kept tokens of a batch, projected alone: cheap when only what is kept has changed."""
        tokens, index = self._tokens_of(flat_features(features), visuals.kept_index, visuals.newline_index)
        return tokens[index]

    def _tokens_of(self, flat_PC: Tensor, bank_index: Tensor, newline_index: int) -> tuple[Tensor, Tensor]:
        """Only those tokens of the bank that are asked for, the newline last, and where among them each one is."""
        used, index = torch.unique(bank_index, return_inverse=True)
        if used[-1] == newline_index:
            used = used[:-1]
        features = flat_PC[used.to(flat_PC.device)].to(self.image_newline)
        return torch.cat([self.multi_modal_projector(features), self.image_newline[None]]), index

    def recall(
        self,
        inputs_embeds_BLD: Tensor,
        visuals: VisualBatch,
        memory: ProjectedMemory,
        observe: QueryObserver | None = None,
    ) -> Tensor:
        """Put the augmented kept tokens into the prompt (paper section 3.3).

        Args:
            inputs_embeds_BLD: embedded prompt; what stands at visual places does not matter.
            visuals: layouts of the batch.
            memory: of the batch.
            observe: is shown what looks into the memory, see `MemAug.forward`.

        Returns:
            [B, L, D]; text positions keep their ordinary embeddings.
        """
        flat = inputs_embeds_BLD.flatten(0, 1)
        places = visuals.input_index[:, None].expand(-1, flat.shape[1])
        with_kept = flat.scatter(0, places, memory.kept_tokens.to(flat.dtype))
        augmented = self.memaug(
            with_kept.index_select(0, visuals.query_index),  # whose backward pass does not sort, as [] does
            visuals.query_positions,
            memory.keys_values,
            visuals.query_segments,
            visuals.recall_segments,
            visuals.memory_segments,
            observe,
        )
        recalled = augmented.index_select(0, visuals.visual_query_index)
        return flat.scatter(0, places, recalled).view_as(inputs_embeds_BLD)

    def embed(
        self,
        input_ids: Tensor,
        visuals: VisualBatch | None = None,
        *,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        memory: ProjectedMemory | None = None,
        observe: QueryObserver | None = None,
    ) -> Tensor:
        """The decoder's input: text embeddings, and augmented tokens in the visual places.

        Visuals come as pixels, as features (transformers' `mm_encoder_outputs`, with `pooler_output` as
        `get_image_features` and `get_video_features` give it), or as a memory made before.

        Args:
            input_ids: [B, L], visual places filled with `config.visual_token_id`.
            visuals: layouts of the batch; None for text only.
            pixel_values: [N, 3, H, W] image views of all samples.
            pixel_values_videos: [N, 3, H, W] frames of all samples.
            mm_encoder_outputs: features under `"image"` and `"video"`.
            memory: of the whole batch, from `remember`.
            observe: is shown what looks into the memory, see `MemAug.forward`.

        Returns:
            [B, L, D]

        Raises:
            InputError: visual places and layouts do not agree, or the visuals are missing or given twice.
        """
        is_visual = input_ids == self.config.visual_token_id
        inputs_embeds: Tensor = self.get_input_embeddings()(input_ids.masked_fill(is_visual, 0))
        if visuals is None:
            if is_visual.any():
                raise InputError("the prompt has places for visual tokens; pass `visuals` as the processor made it")
            return inputs_embeds
        if memory is None:
            memory = self.remember(self._features(pixel_values, pixel_values_videos, mm_encoder_outputs), visuals)
        return self.recall(inputs_embeds, visuals, memory, observe)

    def _features(
        self,
        pixel_values: Tensor | None,
        pixel_values_videos: Tensor | None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None,
    ) -> list[Tensor]:
        given = dict(mm_encoder_outputs or {})
        for modality, pixels in (("image", pixel_values), ("video", pixel_values_videos)):
            if pixels is not None and given.get(modality) is not None:
                raise InputError(f"got both pixels and features of a {modality}; give one of them")
        if pixel_values is not None and pixel_values_videos is not None:
            # Through the tower together: a small one's pass is bound by the launches of its kernels.
            both = [normalised(values, self.config) for values in (pixel_values, pixel_values_videos)]
            images, frames = patch_features(self.vision_tower, torch.cat(both), self.config).split([*map(len, both)])
            return [images, pool_features(frames, self.config.video_grid)]
        if pixel_values is not None:
            given["image"] = self.get_image_features(pixel_values)
        if pixel_values_videos is not None:
            given["video"] = self.get_video_features(pixel_values_videos)
        return [given[modality].pooler_output for modality in ("image", "video") if given.get(modality) is not None]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        visuals: VisualBatch | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        memory: ProjectedMemory | None = None,
        segments: Segments | None = None,
        observe: QueryObserver | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder over a prompt; see `embed` for the visual arguments.

        Args:
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache: as everywhere in
                transformers.
            segments: lengths of the samples packed into the one row of the batch.
            observe: is shown what looks into the memory, see `MemAug.forward`.
            **kwargs: for the decoder.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds")
        if segments is not None:
            tokens = input_ids if input_ids is not None else inputs_embeds
            assert tokens is not None
            position_ids, attention_mask = packed_positions(tokens, segments)
            kwargs["segments"] = segments
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(
                input_ids,
                visuals,
                pixel_values=pixel_values,
                pixel_values_videos=pixel_values_videos,
                mm_encoder_outputs=mm_encoder_outputs,
                memory=memory,
                observe=observe,
            )
        output: BaseModelOutputWithPast = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return output


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
        visuals: VisualBatch | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        memory: ProjectedMemory | None = None,
        segments: Segments | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> HourLlavaOutput:
        """Logits, or the loss if labels are given; then no logits are returned, for they are never all made.

        Args:
            labels: [B, L] token ids, -100 where nothing is supervised. The loss is the mean over supervised tokens.
            label_weights: [B, L] of the labels, 0 where nothing is supervised: a weighted mean instead.
            grounding_weight: of each sample's `grounding_loss`, if the batch tells evidence, against a token's.
            logits_to_keep: only the last so many positions' logits (0: all), or these positions'.
            num_items_in_batch: supervised tokens (their weight) to take the mean over, if this is part of a larger one.
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache: as in transformers.
            visuals, pixel_values, pixel_values_videos, mm_encoder_outputs, memory: see `HourLlavaModel.embed`.
            segments: lengths of the samples packed into the one row of the batch; the first label of each must be -100.
            **kwargs: for the decoder.
        """
        targets = grounding = None
        if labels is not None:
            use_cache = bool(use_cache)  # keys and values of a pass that gives a loss are of no use
            if grounding_weight and visuals is not None and visuals.evidence is not None and self.model.memaug.blocks:
                grounding = Grounding(visuals.evidence, visuals.memory_segments)
            targets = Targets.of(labels, label_weights)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            visuals=visuals,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            mm_encoder_outputs=mm_encoder_outputs,
            memory=memory,
            segments=segments,
            observe=grounding.observe if grounding else None,
            **kwargs,
        )
        hidden_BLD = output.last_hidden_state
        loss, target_losses_N, shares_R, logits = None, None, None, None
        if targets is not None:
            num_targets = targets.weights_N.sum() if num_items_in_batch is None else num_items_in_batch
            target_losses_N = self.lm_head(hidden_BLD.flatten(0, 1), targets)
            total = (target_losses_N * targets.weights_N).sum()
            if grounding is not None:
                shares_R = grounding.shares()
                total = total + grounding_weight * grounding_loss(shares_R).sum()
            loss = total / torch.as_tensor(num_targets).clamp(min=1)
            if self.training:
                idle = self._idle_parameters(
                    visuals is not None, pixel_values is not None or pixel_values_videos is not None
                )
                loss = loss + sum(parameter.sum() for parameter in idle) * 0
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden_BLD[:, kept])
        return HourLlavaOutput(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            target_losses=None if target_losses_N is None else target_losses_N.detach(),
            evidence_shares=None if shares_R is None else shares_R.detach(),
        )

    def _idle_parameters(self, has_visuals: bool, has_pixels: bool) -> list[nn.Parameter]:
        """Trained weights that a batch has no use for; other processes wait for their gradient."""
        model = self.model
        parts: list[nn.Module] = [] if has_pixels else [model.vision_tower]
        idle = [] if has_visuals else [model.image_newline]
        if not has_visuals:
            parts += [model.multi_modal_projector, model.memaug]
        idle += [parameter for part in parts for parameter in part.parameters()]
        return [parameter for parameter in idle if parameter.requires_grad]

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        visuals: VisualBatch | None = None,
        *,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        memory: ProjectedMemory | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' `generate`; the memory is looked into once, before the first token.

        Args:
            input_ids: [B, L], padded on the left.
            visuals, pixel_values, pixel_values_videos, mm_encoder_outputs, memory: see `HourLlavaModel.embed`.
            **kwargs: as in transformers: `attention_mask`, `max_new_tokens`, `streamer`, ...

        Returns:
            what transformers returns: [B, L + new tokens] token ids by default.
        """
        inputs_embeds = self.model.embed(
            input_ids,
            visuals,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            mm_encoder_outputs=mm_encoder_outputs,
            memory=memory,
        )
        return super().generate(input_ids, inputs_embeds=inputs_embeds, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """transformers' step; without a cache every step needs the augmented prompt again, not only the first.

        A token that was generated is text, also where a vocabulary has a word of its own for `visual_token_id`.
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
