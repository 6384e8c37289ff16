"""Chat messages with videos and images to turns, and the visuals they show."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from PIL import Image
from torch import Tensor

from hourllava.errors import InputError
from hourllava.model.layout import VisualLayout
from hourllava.model.prompt import Role, Turn, VisualMark, user_turn, video_sentence


@dataclasses.dataclass(frozen=True)
class Video:
    """A video of a conversation: its frames, its features, or the layout of a memory made before.

    Attributes:
        duration_seconds: stands in the prompt.
        frames: uint8 RGB [T, H, W, 3].
        features: pooled patch features [T, grid * grid, C].
        layout: of the memory; `num_frames` must then be given.
        num_frames: T.
    """

    duration_seconds: float
    frames: Tensor | np.ndarray | None = None
    features: Tensor | None = None
    layout: VisualLayout | None = None
    num_frames: int = 0

    def __post_init__(self) -> None:
        given = [part is not None for part in (self.frames, self.features, self.layout)]
        if sum(given) != 1:
            raise InputError("give a video as frames, as features, or as a layout: one of the three")
        if self.layout is None:
            source = self.frames if self.frames is not None else self.features
            assert source is not None
            object.__setattr__(self, "num_frames", len(source))
        if self.num_frames < 1:
            raise InputError("a video needs at least one frame")


_CONTENT: dict[str, type] = {"text": str, "image": Image.Image, "video": Video}


def turns_from_messages(
    messages: Sequence[Mapping[str, Any]],
) -> tuple[list[Turn], list[Image.Image], list[Video]]:
    """The turns of a conversation in chat form, its images and its videos; visuals of a turn stand before its text.

    Args:
        messages: see `HourLlavaProcessor.encode`.

    Raises:
        InputError: no message, an unknown role or content.
    """
    if isinstance(messages, (str, Mapping)) or not messages:
        raise InputError(f"a conversation is a list of messages, at least one; got {messages!r:.80}")
    turns: list[Turn] = []
    images: list[Image.Image] = []
    videos: list[Video] = []
    for number, message in enumerate(messages):
        role, items = _role_and_items(message, number)
        texts, num_visuals = [], 0
        for item in items:
            kind = item["type"]
            if kind == "text":
                texts.append(item["text"])
                continue
            num_visuals += 1
            if kind == "image":
                images.append(item["image"])
            else:
                video: Video = item["video"]
                videos.append(video)
                texts.insert(0, video_sentence(video.duration_seconds, video.num_frames))
        text = "\n".join(texts)
        turns.append(user_turn(num_visuals, text) if role == "user" else Turn(role, (text,)))
    return turns, images, videos


def with_sentence(turn: Turn, sentence: str) -> Turn:
    """The turn with a sentence between its visual and its text; a turn without visuals is unchanged."""
    if not any(isinstance(part, VisualMark) for part in turn.parts):
        return turn
    text = "".join(part for part in turn.parts if isinstance(part, str)).strip()
    return user_turn(1, f"{sentence}\n{text}" if text else sentence)


def _role_and_items(message: Any, number: int) -> tuple[Role, Sequence[Mapping[str, Any]]]:
    """Role of a chat message, and the items of its content, each of a known type.

    Raises:
        InputError: the message has another form.
    """
    given: Mapping[str, Any] = message if isinstance(message, Mapping) else {}
    role: Any = given.get("role")
    content: Any = given.get("content")
    if role not in get_args(Role) or (role == "system" and number > 0):
        raise InputError(
            f"message {number} has the role {role!r:.80}; allowed are system (first only), user, assistant"
        )
    if isinstance(content, str):
        return role, [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise InputError(f"message {number} has the content {content!r:.80}; it must be a text, or a list of items")
    for item in content:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if not isinstance(kind, str) or kind not in _CONTENT:
            raise InputError(f"message content of type {kind!r:.80}; allowed are text, image and video")
        if not isinstance(item.get(kind), _CONTENT[kind]):
            wanted = _CONTENT[kind]
            raise InputError(
                f"message {number} gives its {kind} as {type(item.get(kind)).__name__}; it must be "
                f"{wanted.__module__}.{wanted.__name__}"
            )
        if kind != "text" and role != "user":
            raise InputError(f"message {number} is of the {role} and holds a {kind}; only the user shows something")
    return role, content
