"""Conversations to token ids and labels, in the released ChatML form.

    <|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n
    <|im_start|>user\\n[visual]\\nWhat happens first?<|im_end|>\\n
    <|im_start|>assistant\\nThe cooking.<|im_end|>\\n

Text is never searched for special tokens: `<|im_end|>` or `<image>` typed by a user stay text. Only training records in
LLaVA's format are split at `<image>`, which is a mark of that format. Half a surrogate pair is no character; Python
makes one of bytes that are not UTF-8, JSON of half an escape. A text with one is refused, never changed.

Label policies: `answers` supervises answers and the `<|im_end|>` after them. `llava`, the release's policy, supervises
the assistant's whole turn and, everywhere else, `<|im_start|>`, `<|im_end|>` and the newline token.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from hourllava.errors import ConfigError, InputError
from hourllava.model.head import IGNORED_LABEL

LabelPolicy = Literal["answers", "llava"]
Role = Literal["system", "user", "assistant"]

SYSTEM_PROMPT = "You are a helpful assistant."
START, END = "<|im_start|>", "<|im_end|>"
RECORD_MARK = "<image>"
"""The mark of a visual in a training record."""
_REPEATED_CHARACTERS = 48  # texts up to this length are cached

_RECORD_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}


class VisualMark:
    """Stands for one image or video between the texts of a turn."""


VISUAL = VisualMark()
Part = str | VisualMark


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a conversation: texts and visuals in order."""

    role: Role
    parts: tuple[Part, ...]


@dataclasses.dataclass(frozen=True)
class TokenizedPrompt:
    """A conversation as tokens.

    Attributes:
        input_ids: token ids; each visual is one `visual_token_id`.
        labels: ids of supervised tokens, -100 elsewhere.
    """

    input_ids: list[int]
    labels: list[int]


def video_sentence(duration_seconds: float, num_frames: int) -> str:
    """The sentence that tells the model how long a video is (part of the released prompt)."""
    return (
        f"The video lasts for {duration_seconds:.2f} seconds, and {num_frames} frames are uniformly sampled from it. "
        "Please answer the following questions related to this video."
    )


def turns_from_record(conversations: Sequence[Mapping[str, str]]) -> list[Turn]:
    """The turns of a training record in LLaVA's format (`from`, `value`, `<image>` marks).

    The only `<image>` of a turn moves to its start. A first turn that is not the user's is dropped.

    Raises:
        InputError: no turn, a turn without the two keys, or of an unknown speaker.
    """
    turns = []
    if not conversations:
        raise InputError("the record holds no turn; it needs a question and an answer")
    for number, entry in enumerate(conversations):
        if not isinstance(entry, Mapping):
            raise InputError(f"turn {number} must be a mapping with 'from' and 'value', got {entry!r:.80}")
        speaker, text = entry.get("from"), entry.get("value")
        role = _RECORD_ROLES.get(str(speaker))
        if role is None or not isinstance(text, str):
            raise InputError(f"turn {number} needs 'from' (human or gpt) and 'value' (text), got {dict(entry)!r:.80}")
        if text.count(RECORD_MARK) == 1 and not text.startswith(RECORD_MARK):
            text = f"{RECORD_MARK}\n{text.replace(RECORD_MARK, '').strip()}"
        pieces = text.split(RECORD_MARK)
        parts: list[Part] = [pieces[0]]
        for piece in pieces[1:]:
            parts += [VISUAL, piece]
        turns.append(Turn(role, tuple(part for part in parts if part != "")))
    return turns[1:] if turns and turns[0].role != "user" else turns


def user_turn(num_visuals: int, text: str) -> Turn:
    """A user's turn: its visuals first, then the text on a new line."""
    lead: list[Part] = [VISUAL] * num_visuals
    return Turn("user", (*lead, f"\n{text}" if lead else text))


def tokenize_turns(
    turns: Sequence[Turn],
    tokenizer: Any,
    visual_token_id: int,
    *,
    label_policy: LabelPolicy = "answers",
    num_context_turns: int = 0,
    add_generation_prompt: bool = False,
) -> TokenizedPrompt:
    """Turns to ids and labels.

    Args:
        turns: user and assistant in order; the system prompt precedes them unless the first turn is one.
        tokenizer: must have `<|im_start|>` and `<|im_end|>`.
        visual_token_id: stands for a visual.
        label_policy: which tokens are supervised.
        num_context_turns: of the given turns, the first ones, of which no token is supervised.
        add_generation_prompt: end with the opening of an assistant's turn.

    Raises:
        ConfigError: the tokenizer lacks a special token, or the policy is unknown.
        InputError: a text holds the visual token, or half a surrogate pair.
    """
    if label_policy not in get_args(LabelPolicy):
        raise ConfigError(f"label_policy is {label_policy!r}; choose one of {', '.join(get_args(LabelPolicy))}")
    start, end = special_token_id(tokenizer, START), special_token_id(tokenizer, END)
    if not turns or turns[0].role != "system":
        turns = [Turn("system", (SYSTEM_PROMPT,)), *turns]
        num_context_turns += bool(num_context_turns)
    opening = "assistant\n"
    spans = [_texts_between_visuals(turn) for turn in turns]
    for text in (text for texts in spans for text in texts):
        check_text(text)
    headers = {f"{turn.role}\n" for turn in turns}
    # The tokenizer is called once, because a call costs at least 80 us.
    ids_of = _plain_ids(tokenizer, {"\n", opening, *headers, *(text for texts in spans for text in texts)})
    newline = ids_of["\n"]
    marks = {start, end, newline[-1]}

    input_ids: list[int] = []
    labels: list[int] = []
    for number, (turn, texts) in enumerate(zip(turns, spans)):
        ids = [start, *ids_of[texts[0]]]
        for text in texts[1:]:
            ids += [visual_token_id, *ids_of[text]]
        ids += [end, *newline]
        if label_policy == "llava":
            supervised = [turn.role == "assistant" or token in marks for token in ids]
        else:
            answer = range(1 + len(ids_of[f"{turn.role}\n"]), len(ids) - len(newline))
            supervised = [turn.role == "assistant" and place in answer for place in range(len(ids))]
        if number < num_context_turns:
            supervised = [False] * len(ids)
        input_ids += ids
        labels += [
            token if is_supervised and token != visual_token_id else IGNORED_LABEL
            for token, is_supervised in zip(ids, supervised)
        ]
    if add_generation_prompt:
        input_ids += [start, *ids_of[opening]]
        labels += [IGNORED_LABEL] * (1 + len(ids_of[opening]))
    if input_ids.count(visual_token_id) != sum(len(texts) - 1 for texts in spans):
        raise InputError(f"a text of the conversation contains token {visual_token_id}, which stands for visuals")
    return TokenizedPrompt(input_ids, labels)


def check_text(text: str) -> None:
    """Refuse a text with half a surrogate pair, which no tokenizer takes.

    Raises:
        InputError: it has one; the message names the place.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text holds half a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start}, which "
            "is no character; give the text as UTF-8"
        ) from error


def special_token_id(tokenizer: Any, token: str) -> int:
    """The id of a special token.

    Raises:
        ConfigError: the tokenizer lacks it.
    """
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise ConfigError(
            f"the tokenizer has no {token} token; use a Qwen2 tokenizer or one trained with ChatML tokens"
        )
    return int(token_id)


def _texts_between_visuals(turn: Turn) -> list[str]:
    """The turn's header and texts, cut at its visuals.

    The header's newline and the text are tokenized together, as in training: BPE may merge across them.
    """
    texts = [f"{turn.role}\n"]
    for part in turn.parts:
        if isinstance(part, str):
            texts[-1] += part
        else:
            texts.append("")
    return texts


def _plain_ids(tokenizer: Any, texts: Iterable[str]) -> dict[str, Sequence[int]]:
    """The ids of each text."""
    ids_of: dict[str, Sequence[int]] = {"": ()}
    new = []
    for text in texts:
        if len(text) > _REPEATED_CHARACTERS:
            new.append(text)
        else:
            ids_of[text] = _repeated_ids(tokenizer, text)
    if new:
        ids_of |= zip(new, tokenizer(new, add_special_tokens=False, split_special_tokens=True).input_ids)
    return ids_of


@functools.lru_cache(maxsize=4096)
def _repeated_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The ids of a short text; headers, the system prompt and many answers repeat in training."""
    return tuple(tokenizer([text], add_special_tokens=False, split_special_tokens=True).input_ids[0]) if text else ()
