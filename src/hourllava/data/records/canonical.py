"""Brings the different spellings of training records into one form.

    media           `image`, `images`, `video`, `videos`: a path or a list of paths; null, NaN, "" and [] mean none
    turns           `conversations`, `messages`, `conversation`: a list, or its JSON as a text
    a turn          {from, value} or {role, content}; human or user, gpt or assistant
    its content     a text, or a list of parts: texts, and pictures or videos, which become the mark <image>

`data check`, `group`, `shard`, `prepare` and `sources` all use `canonical_record`, so they agree on the content of a
record. Nothing is guessed: a record with any other form is a `RecordFault`.
"""

import json
from collections.abc import Iterable
from typing import Any, Literal

from hourllava.errors import DataError

IMAGE = "<image>"
RECORD_FIELDS = ("id", "data_source", "video", "image", "conversations")
TURN_FIELDS = ("conversations", "messages", "conversation")
MediaKind = Literal["video", "image"]
_MEDIA_FIELDS: dict[str, MediaKind] = {"video": "video", "videos": "video", "image": "image", "images": "image"}
READ_FIELDS = frozenset({*RECORD_FIELDS, *TURN_FIELDS, *_MEDIA_FIELDS})
_SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}
_MEDIA_PARTS: dict[str, MediaKind] = {
    "image": "image", "image_url": "image", "input_image": "image", "video": "video", "video_url": "video",
    "input_video": "video",
}  # fmt: skip
_PUBLISHED_TURN = {"from", "value"}
_TEXT_PARTS = ("text", "input_text", "output_text")


class RecordFault(DataError):
    """A record that cannot be read as a conversation: a `kind` for counts, and a `detail` of this record."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


def is_missing(value: Any) -> bool:
    """Whether a cell has no value: null, or NaN, which tables use for it."""
    return value is None or (isinstance(value, float) and value != value)


def is_text(text: str) -> bool:
    """Whether a text can be written and tokenized: escapes in JSON can make half surrogate pairs, which cannot."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def is_conversation(record: Any) -> bool:
    """Whether a record is an object with turns; other objects are question rows."""
    return isinstance(record, dict) and any(not is_missing(record.get(name)) for name in TURN_FIELDS)


def names_images(record: Any) -> bool:
    """Whether a record names a picture, as far as its media can be read."""
    if not isinstance(record, dict):
        return False
    try:
        if "image" in record or "images" in record:
            kind = _media_field(record)[0]
            if kind is not None:
                return kind == "image"
        turns = next((record[name] for name in TURN_FIELDS if not is_missing(record.get(name))), ())
        has_parts = isinstance(turns, str) or any(isinstance(turn, dict) and _has_parts(turn) for turn in turns)
        return has_parts and "image" in canonical_record(record)
    except (RecordFault, TypeError):  # turns that are no list
        return False


def _has_parts(turn: dict[str, Any]) -> bool:
    return isinstance(turn.get("content"), list) or isinstance(turn.get("value"), list)


def media_names(record: dict[str, Any]) -> list[str]:
    """The paths of a canonical record's media."""
    names = record.get("video", record.get("image", []))
    return [names] if isinstance(names, str) else list(names)


def canonical_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record with turns, in the published form. Fields keep their order; fields without a value are left out.

    `conversations` is a list of {from, value}; `from` is human, gpt, system or another speaker of the file. `video` is
    a path, `image` a path or a list of paths. Other fields, also of turns, stay unchanged.

    Raises:
        RecordFault: turns or media have an unknown form, or contradict each other.
    """
    turn_fields = [name for name in TURN_FIELDS if not is_missing(record.get(name))]
    if len(turn_fields) != 1:
        raise RecordFault("two conversations" if turn_fields else "no conversation", " and ".join(turn_fields))
    named: list[tuple[MediaKind, str]] = []
    turns = [_turn(turn, named) for turn in _turn_list(record[turn_fields[0]])]
    if not all(is_text(turn["value"]) for turn in turns):
        raise RecordFault("half a surrogate pair in a turn")
    kind, media, media_field = _media_field(record)
    if named:
        kinds, paths = {found for found, _ in named}, [path for _, path in named]
        if kind is None:
            if len(kinds) > 1:
                raise RecordFault("both video and image")
            kind, media = kinds.pop(), paths
        elif kinds != {kind} or paths != ([media] if isinstance(media, str) else media):
            raise RecordFault("messages name other media than the record", ", ".join(paths)[:80])
    if kind == "video" and isinstance(media, list):
        if len(media) > 1:
            raise RecordFault("more than one video", f"{len(media)} are named")
        media = media[0]
    if kind == "video" and not any(IMAGE in turn["value"] for turn in turns):
        turns = [turn | {"value": turn["value"].replace("<video>", IMAGE)} for turn in turns]
    whole: dict[str, Any] = {}
    for name, value in record.items():
        if name == turn_fields[0]:
            if kind is not None and media_field is None:
                whole[kind] = media
            whole["conversations"] = turns
        elif name == media_field and kind is not None:
            whole[kind] = media
        elif name not in TURN_FIELDS and name not in _MEDIA_FIELDS and not is_missing(value):
            whole[name] = value
    return whole


def _media_field(record: dict[str, Any]) -> tuple[MediaKind | None, str | list[str], str | None]:
    """(kind, path or paths, field that holds them) of a record's media; (None, [], None) without."""
    found: list[tuple[MediaKind, str | list[str], str]] = []
    for name, kind in _MEDIA_FIELDS.items():
        value: Any = record.get(name)
        if is_missing(value) or value == "" or value == []:
            continue
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(path, str) and path.strip() for path in names):
            raise RecordFault("media is no path", f"{name!r} must be a path or a list of paths, got {value!r:.80}")
        _refuse_addresses(names)
        found.append((kind, value, name))
    if len(found) > 1:
        fields = sorted(name for _, _, name in found)
        raise RecordFault("both video and image" if fields == ["image", "video"] else f"both {' and '.join(fields)}")
    return found[0] if found else (None, [], None)


def _refuse_addresses(names: Iterable[str]) -> None:
    for name in names:
        if "://" in name or name.startswith("data:"):
            raise RecordFault("media is no path", f"{name[:60]!r} is an address; fetch the file, and name it")


def _turn_list(turns: Any) -> list[Any]:
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError) as error:
            raise RecordFault("conversation is no list", "it is a text, and no JSON") from error
    if not isinstance(turns, list):
        raise RecordFault("conversation is no list", f"'conversations' must be a list, got {turns!r:.60}")
    return turns


def _turn(turn: Any, named: list[tuple[MediaKind, str]]) -> dict[str, Any]:
    """{from, value} and the turn's other fields; media that its parts name are added to `named`."""
    if not isinstance(turn, dict):
        raise RecordFault("a turn is no {from, value}", repr(turn)[:80])
    if turn.keys() == _PUBLISHED_TURN and turn["from"] in ("human", "gpt") and isinstance(turn["value"], str):
        return turn  # nearly all turns
    spoken = [name for name in ("from", "role", "speaker") if not is_missing(turn.get(name))]
    said = [name for name in ("value", "content") if name in turn]
    if len(said) > 1:
        said = [name for name in said if not is_missing(turn[name])] or said[:1]
    if len(spoken) != 1 or len(said) != 1 or not isinstance(turn[spoken[0]], str):
        raise RecordFault("a turn is no {from, value}", repr(turn)[:80])
    speaker, value = turn[spoken[0]], turn[said[0]]
    if is_missing(value):
        value = ""
    elif isinstance(value, list):
        value = "\n".join(_part(part, named) for part in value)
    elif not isinstance(value, str):
        raise RecordFault("a turn is no {from, value}", repr(turn)[:80])
    others = {
        name: cell
        for name, cell in turn.items()
        if name not in ("from", "role", "speaker", "value", "content") and not is_missing(cell)
    }
    return {"from": _SPEAKERS.get(speaker.strip().lower(), speaker), "value": value} | others


def _part(part: Any, named: list[tuple[MediaKind, str]]) -> str:
    """The text of one part of a message, or the mark for its picture or video."""
    if isinstance(part, str):
        return part
    cells = {name: cell for name, cell in part.items() if not is_missing(cell)} if isinstance(part, dict) else {}
    kind = cells.get("type") or (next(iter(cells)) if len(cells) == 1 else None)
    if kind in _TEXT_PARTS:
        text = cells.get("text", cells.get(str(kind), ""))
        if isinstance(text, str):
            return text
    if kind in _MEDIA_PARTS:
        name = next((cells[key] for key in (str(kind), "path", "url", "file") if key in cells), None)
        if isinstance(name, dict):
            name = name.get("url", name.get("path"))
        if name is None or isinstance(name, str):
            if name:
                _refuse_addresses([name])
                named.append((_MEDIA_PARTS[str(kind)], name))
            return IMAGE
    raise RecordFault("a part of a message cannot be used", repr(part)[:80])
