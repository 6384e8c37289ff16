"""The families of decoders and vision towers that a model may use.

Families differ in more than sizes: windows of attention, scaled logits, biased heads, capped scores. An unknown family
would load, run and silently be wrong. So a table lists the verified families. Tests compare each with its own model in
transformers (logits, packed samples, token by token). All other families are refused by name.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

from hourllava.errors import ConfigError
from hourllava.model.checks import require, require_choice, require_number, require_whole

MAX_LAYERS = 512
MAX_WIDTH = 2**24
MAX_VOCABULARY = 2**31 - 1
MAX_IMAGE_PIXELS = 2**14
"""Sizes above these are mistakes, and such a model would take for ever to build."""


@dataclasses.dataclass(frozen=True)
class DecoderFamily:
    """Differences of a family of decoders from Llama.

    Attributes:
        has_windows: layers may attend to the last `sliding_window` tokens only.
        has_head_bias: the language-model head has a bias.
        logit_factor: factor of the logits, from the decoder's configuration.
    """

    has_windows: bool = False
    has_head_bias: bool = False
    logit_factor: Callable[[Any], float] = lambda text_config: 1.0


DECODERS: dict[str, DecoderFamily] = {
    "cohere": DecoderFamily(logit_factor=lambda text_config: text_config.logit_scale),
    "cohere2": DecoderFamily(has_windows=True, logit_factor=lambda text_config: text_config.logit_scale),
    "gemma": DecoderFamily(),
    "gemma3_text": DecoderFamily(has_windows=True),
    "granite": DecoderFamily(logit_factor=lambda text_config: 1.0 / text_config.logits_scaling),
    "llama": DecoderFamily(),
    "mistral": DecoderFamily(has_windows=True),
    "olmo2": DecoderFamily(),
    "olmo3": DecoderFamily(has_windows=True),
    "phi": DecoderFamily(has_head_bias=True),
    "phi3": DecoderFamily(has_windows=True),
    "qwen2": DecoderFamily(has_windows=True),
    "qwen3": DecoderFamily(has_windows=True),
    "smollm3": DecoderFamily(has_windows=True),
    "starcoder2": DecoderFamily(has_windows=True),
}
"""By `model_type` of `text_config`."""

VISION_FAMILIES = ("clip_vision_model", "siglip_vision_model")
"""By `model_type` of `vision_config`. They give patch tokens, and end with a `post_layernorm` that we leave out."""

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary positions. Angles of other kinds (`dynamic`, `longrope`) depend on the length of the batch."""

LAYER_TYPES = ("full_attention", "sliding_attention")

# Settings of these families that we do not serve, each with the value that switches it off.
_SWITCHED_OFF = {
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
}


def require_family(place: str, model_type: Any, families: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Refuse a family outside its table.

    Args:
        place: `text_config` or `vision_config`.
        model_type: of this part.
        families: the verified ones.

    Raises:
        ConfigError: the family is not verified.
    """
    require(
        isinstance(model_type, str) and model_type in families,
        f"{place} names the family {model_type!r:.80}, which is not verified with this library; allowed are "
        f"{', '.join(families)}",
    )


def check_decoder(text_config: PreTrainedConfig) -> None:
    """Refuse a decoder that would give wrong numbers or fail.

    Raises:
        ConfigError: another family, sizes that do not fit together, or a setting that is not served.
    """
    require_family("text_config", text_config.model_type, DECODERS)
    text: Any = text_config
    for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
        require_whole(f"text_config.{name}", getattr(text, name), 1, MAX_WIDTH)
    require_whole("text_config.num_hidden_layers", text.num_hidden_layers, 1, MAX_LAYERS)
    require_whole("text_config.vocab_size", text.vocab_size, 2, MAX_VOCABULARY)
    require_whole("text_config.max_position_embeddings", text.max_position_embeddings, 1, MAX_VOCABULARY)
    heads, groups = text.num_attention_heads, getattr(text, "num_key_value_heads", None)
    require(
        text.hidden_size % heads == 0,
        f"text_config.hidden_size {text.hidden_size} is not a multiple of its {heads} heads",
    )
    if groups is not None:
        require_whole("text_config.num_key_value_heads", groups, 1, heads)
        require(heads % groups == 0, f"text_config has {heads} heads, not a multiple of its {groups} key/value heads")
    if getattr(text, "head_dim", None) is not None:
        require_whole("text_config.head_dim", text.head_dim, 2, MAX_WIDTH)
    for name, off in _SWITCHED_OFF.items():
        value = getattr(text, name, off)
        require(value in (off, None), f"text_config.{name} is {value!r:.80}; only {off} is served here")
    _check_epsilons("text_config", text)
    _check_windows(text)
    factor = DECODERS[text.model_type].logit_factor(text)
    require_number("text_config: the factor of the logits", factor)
    for parameters in _rope_parameters(text):
        require_choice("text_config.rope_parameters: rope_type", parameters.get("rope_type", "default"), ROPE_TYPES)
        if "rope_theta" in parameters:
            require_number("text_config.rope_parameters: rope_theta", parameters["rope_theta"], above=0)


def check_vision_tower(vision_config: PreTrainedConfig) -> None:
    """Refuse a vision tower that would give wrong features or fail.

    Raises:
        ConfigError: another family, or sizes that do not fit together.
    """
    require_family("vision_config", vision_config.model_type, VISION_FAMILIES)
    vision: Any = vision_config
    for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
        require_whole(f"vision_config.{name}", getattr(vision, name), 1, MAX_WIDTH)
    require_whole("vision_config.num_hidden_layers", vision.num_hidden_layers, 1, MAX_LAYERS)
    for name in ("image_size", "patch_size"):
        require_whole(f"vision_config.{name}", getattr(vision, name), 1, MAX_IMAGE_PIXELS)
    require(
        vision.hidden_size % vision.num_attention_heads == 0,
        f"vision_config.hidden_size {vision.hidden_size} is not a multiple of its {vision.num_attention_heads} heads",
    )
    require(
        vision.image_size >= vision.patch_size,
        f"vision_config.image_size {vision.image_size} is smaller than its patch size {vision.patch_size}",
    )
    require(
        vision.num_channels == 3, f"vision_config.num_channels is {vision.num_channels!r:.80}; pictures have 3 colours"
    )
    _check_epsilons("vision_config", vision)


def attention_window(text_config: PreTrainedConfig) -> int | None:
    """Number of last tokens, itself included, that a token sees in windowed layers; None if no layer has a window."""
    window = getattr(text_config, "sliding_window", None)
    if window is None or not DECODERS[text_config.model_type].has_windows:
        return None
    return int(window)


def text_rope_theta(text_config: PreTrainedConfig) -> float:
    """Base of the decoder's rotary positions; where layers differ, that of layers with full attention.

    Raises:
        ConfigError: the configuration names none.
    """
    bases = [parameters["rope_theta"] for parameters in _rope_parameters(text_config) if "rope_theta" in parameters]
    if not bases:
        raise ConfigError("text_config.rope_parameters names no rope_theta; give one, or set memaug.rope_theta")
    return float(bases[0])


def _rope_parameters(text_config: PreTrainedConfig) -> Iterator[Mapping[str, Any]]:
    """The decoder's rotary settings: one mapping for all layers, or one for each kind, full attention first."""
    parameters = getattr(text_config, "rope_parameters", None) or {}
    require(isinstance(parameters, Mapping), f"text_config.rope_parameters is {parameters!r:.80}; it must be a mapping")
    nested = [parameters[kind] for kind in LAYER_TYPES if isinstance(parameters.get(kind), Mapping)]
    yield from nested or [parameters]


def _check_windows(text: Any) -> None:
    window = getattr(text, "sliding_window", None)
    layer_types = set(getattr(text, "layer_types", None) or ())
    require(
        layer_types <= set(LAYER_TYPES),
        f"text_config.layer_types names {', '.join(map(str, sorted(layer_types - set(LAYER_TYPES))))}; allowed are "
        f"{', '.join(LAYER_TYPES)}",
    )
    if window is not None:
        require_whole("text_config.sliding_window", window, 1, MAX_VOCABULARY)
    is_windowed = "sliding_attention" in layer_types
    require(
        DECODERS[text.model_type].has_windows or (window is None and not is_windowed),
        f"text_config asks for sliding windows, which the family {text.model_type!r} does not have; leave "
        "sliding_window out",
    )
    require(
        window is not None or not is_windowed,
        "text_config.layer_types names sliding_attention, but sliding_window is not set",
    )


def _check_epsilons(place: str, config: Any) -> None:
    for name, value in vars(config).items():
        if name.endswith(("_eps", "_epsilon")):
            require_number(f"{place}.{name}", value, above=0)
