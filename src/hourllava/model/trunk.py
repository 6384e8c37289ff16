"""Hour-LLaVA without its language-model head: vision tower, projector, memory, MemAug, decoder.

    frames or images -> patch features -> projected patch tokens -> memory (keys and values for MemAug) + kept tokens
    prompt with kept tokens -> MemAug looks into the memory -> prompt with augmented tokens -> decoder

The layout gives the length of the visual part of a prompt before anything is computed (`hourllava.model.layout`). So
padded batches, packed batches and `generate` need no special cases: `embed` makes the decoder's input, and everything
after it is an ordinary language model.

Shapes: B rows, L tokens of a row, N views or frames, P patch tokens, M memory entries, K kept tokens, C tower width,
D decoder width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, Cache, PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

from hourllava.errors import InputError
from hourllava.model.attention import Segments
from hourllava.model.config import HourLlavaConfig
from hourllava.model.decoder_attention import PACKED_ATTENTION, packed_positions
from hourllava.model.memaug import (
    MemAug,
    MemoryKeysValues,
    ProjectedMemory,
    QueryObserver,
    ResidualOutput,
    SeenQueries,
)
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
from hourllava.model.visuals import Visuals


class HourLlavaPreTrainedModel(PreTrainedModel):
    """What Hour-LLaVA's models tell transformers about themselves."""

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
        if isinstance(module, MemAug) and module.recall_tokens is not None:
            initialization.normal_(module.recall_tokens, std=self.config.text_config.hidden_size**-0.5)  # as newlines
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
        """Pooled features of video frames: [N, 3, H, W] -> [N, grid * grid, C], in `pooler_output`."""
        features = patch_features(self.vision_tower, pixel_values_videos, self.config)
        return BaseModelOutputWithPooling(pooler_output=pool_features(features, self.config.video_grid))

    def features(self, visuals: Visuals) -> Tensor:
        """[P, C] patch features of all images, then of all videos; pixels go through the vision tower.

        Raises:
            InputError: a modality has both pixels and features, or the layouts need another number of patch tokens.
        """
        pixels, given = visuals.pixels, dict(visuals.features)
        for modality in pixels:
            if modality in given:
                raise InputError(f"got both pixels and features of a {modality}; give one of them")
        if len(pixels) == 2:
            # Through the tower together: a small one's pass is bound by the launches of its kernels.
            both = [normalised(pixels[modality], self.config) for modality in ("image", "video")]
            images, frames = patch_features(self.vision_tower, torch.cat(both), self.config).split([*map(len, both)])
            given = {"image": images, "video": pool_features(frames, self.config.video_grid)}
        elif "image" in pixels:
            given["image"] = self.get_image_features(pixels["image"]).pooler_output
        elif "video" in pixels:
            given["video"] = self.get_video_features(pixels["video"]).pooler_output
        ordered = [given[modality] for modality in ("image", "video") if modality in given]
        flat_PC = flat_features(ordered) if ordered else self.image_newline.new_empty(0)
        expected = visuals.layouts.num_image_tokens + visuals.layouts.num_video_tokens
        if flat_PC.shape[0] != expected:
            raise InputError(
                f"got {flat_PC.shape[0]} patch tokens for layouts that speak of {expected}; give the features the "
                "layouts were made for, frames of all videos one after the other"
            )
        return flat_PC

    def token_bank(self, visuals: Visuals) -> Tensor:
        """All tokens that a memory can be made of.

        Returns:
            [P + resized + 1, D]: projected patch tokens, resized tile grids, the newline.
        """
        tokens_PD = self.multi_modal_projector(self.features(visuals).to(self.image_newline))
        parts = [tokens_PD]
        for resize in visuals.layouts.resizes:
            source = torch.from_numpy(resize.source_index).to(tokens_PD.device)
            grid = tokens_PD[source].unflatten(0, (1, resize.height, resize.width))
            parts.append(resize_grid(grid, resize.new_height, resize.new_width).flatten(0, 2))
        return torch.cat([*parts, self.image_newline[None]])

    def remember(self, visuals: Visuals) -> ProjectedMemory:
        """Project pixels or features into a memory, which is the same for every question.

        Returns:
            keys and values for every MemAug block, and the kept tokens.
        """
        layouts, bank = visuals.layouts, self.token_bank(visuals)
        keys_values = self.memaug.keys_values(bank, layouts.memory_index, layouts.memory_positions)
        return ProjectedMemory(keys_values, F.embedding(layouts.kept_index, bank))

    def keys_values(self, visuals: Visuals, entries: slice) -> list[MemoryKeysValues]:
        """Keys and values of some memory entries of one video, for each MemAug block; nothing else is projected.

        Args:
            visuals: with features of one video, which may lie on the CPU.
            entries: of its memory.
        """
        layouts = visuals.layouts
        assert not layouts.resizes, "only videos are long enough for parts"
        tokens, index = self._used_tokens(self.features(visuals), layouts.memory_index[entries], layouts.newline_index)
        return self.memaug.keys_values(tokens, index, layouts.memory_positions[entries])

    def kept_tokens(self, visuals: Visuals) -> Tensor:
        """[K, D] kept tokens alone, without keys and values: cheap where only the choice of kept tokens has changed."""
        layouts = visuals.layouts
        tokens, index = self._used_tokens(self.features(visuals), layouts.kept_index, layouts.newline_index)
        return tokens[index]

    def _used_tokens(self, flat_PC: Tensor, bank_index: Tensor, newline_index: int) -> tuple[Tensor, Tensor]:
        """The tokens of the bank that `bank_index` names, each once, the newline last; and their places in there."""
        used, index = torch.unique(bank_index, return_inverse=True)
        if used[-1] == newline_index:
            used = used[:-1]
        features = flat_PC[used.to(flat_PC.device)].to(self.image_newline)
        return torch.cat([self.multi_modal_projector(features), self.image_newline[None]]), index

    def recall(self, inputs_embeds_BLD: Tensor, visuals: Visuals, observe: QueryObserver | None = None) -> Tensor:
        """Put the augmented kept tokens, and recall tokens, into the prompt (paper section 3.3).

        Args:
            inputs_embeds_BLD: embedded prompt; its values at visual places have no effect.
            visuals: of the batch. Without a memory, one is made of them.
            observe: sees the queries of each block and the memory they look into, see `MemAug.forward`.

        Returns:
            [B, L, D]; text positions keep their ordinary embeddings.
        """
        layouts, memory = visuals.layouts, visuals.memory
        if memory is None:
            memory = self.remember(visuals)
        flat = inputs_embeds_BLD.flatten(0, 1)
        visual, places, queries, seen = memory.kept_tokens, layouts.input_index, layouts.visual_query_index, None
        if (recall := layouts.recall) is not None:
            seen = SeenQueries(recall.seen_segments, recall.seen_index)
            if (learnt_RD := self.memaug.recall_tokens) is not None:
                num_samples = len(recall.input_index) // len(learnt_RD)
                visual = torch.cat([visual, learnt_RD.to(visual.dtype).repeat(num_samples, 1)])
                places, queries = torch.cat([places, recall.input_index]), torch.cat([queries, recall.query_index])
        places = places[:, None].expand(-1, flat.shape[1])
        with_visual = flat.scatter(0, places, visual.to(flat.dtype))
        augmented = self.memaug(
            with_visual.index_select(0, layouts.query_index),  # whose backward pass does not sort, as [] does
            layouts.query_positions,
            memory.keys_values,
            layouts.query_segments,
            layouts.recall_segments,
            layouts.memory_segments,
            observe,
            seen,
        )
        return flat.scatter(0, places, augmented.index_select(0, queries)).view_as(inputs_embeds_BLD)

    def embed(self, input_ids: Tensor, visuals: Visuals | None = None, observe: QueryObserver | None = None) -> Tensor:
        """The decoder's input: text embeddings, and augmented tokens at the visual places.

        Args:
            input_ids: [B, L], visual places filled with `config.visual_token_id`.
            visuals: of the batch; None for text only.
            observe: see `recall`.

        Returns:
            [B, L, D]

        Raises:
            InputError: the prompt has visual places but no visuals, or `features` refuses these.
        """
        is_visual = input_ids == self.config.visual_token_id
        inputs_embeds: Tensor = self.get_input_embeddings()(input_ids.masked_fill(is_visual, 0))
        if visuals is not None:
            return self.recall(inputs_embeds, visuals, observe)
        if is_visual.any():
            raise InputError("the prompt has places for visual tokens; pass `visuals` as the processor made it")
        return inputs_embeds

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        segments: Segments | None = None,
        observe: QueryObserver | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder over a prompt.

        Args:
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache: as everywhere in
                transformers.
            segments: lengths of the samples packed into the one row of the batch.
            observe: see `recall`.
            **kwargs: visuals, see `Visuals.take_from`; everything else goes to the decoder.
        """
        visuals = Visuals.take_from(kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("give either input_ids or inputs_embeds")
        if segments is not None:
            tokens = input_ids if input_ids is not None else inputs_embeds
            assert tokens is not None
            position_ids, attention_mask = packed_positions(tokens, segments)
            kwargs["segments"] = segments
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(input_ids, visuals, observe)
        output: BaseModelOutputWithPast = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return output
