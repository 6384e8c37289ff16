"""Makes training samples of shard rows, and tells their lengths.

    encode = RowEncoder(processor, media_root)
    samples = encode(dataset[5], seed=1)  # reads the row's video or features
    views, kept_tokens, text_tokens = encode.lengths(dataset[5])  # opens its files, decodes nothing

The columns of a shard row tell its kind, the end of a video's path tells what the file is:

    v.safetensors, v.int8.safetensors   a memory of pre-extracted features: all of its frames
    v.pt                                features of the release: `min(T, whole seconds)` of its frames, evenly
    v.world.json                        a MarathonWorld video, drawn when it is read, one frame a second
    any other end                       a video, decoded at 1 FPS by presentation time
    an image column without an `image` in the record    text only: the picture is the 1x1 image of such rows

The decoding process is started with subprocess, because daemonic DataLoader workers may have no other children.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from hourllava.data.features.check import check_encoder
from hourllava.data.features.files import feature_size, load_features
from hourllava.data.mds.encodings import CODING_ERRORS
from hourllava.data.records.media import find_media, media_path
from hourllava.errors import ConfigError, DataError, MemoryFileError
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.model.config import HourLlavaConfig
from hourllava.model.forgetting import evenly_spaced
from hourllava.model.inputs import Sample
from hourllava.model.layout import NEWLINE, VisualLayout, video_layout
from hourllava.model.messages import Video
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.prompt import RECORD_MARK, LabelPolicy
from hourllava.video import probe, read_frames
from hourllava.video.drawn import draw_all, open_registered
from hourllava.video.timeline import SampleGrid

Questions = Literal["conversation", "segments"]
Conversation = Sequence[Mapping[str, Any]]

RECALL_SETTING = "recall_tokens"
FPS = 1.0
FEATURE_SUFFIXES = (".safetensors", ".pt")
_MAX_KNOWN_VIDEOS = 1 << 16


class Part(NamedTuple):
    """What one sample holds of a record's conversation."""

    turns: Conversation
    num_context_turns: int = 0  # the first turns, of which nothing is supervised


class RowEncoder:
    """Makes the samples of video, image and text rows; can be sent to DataLoader workers.

    Args:
        processor: of the model.
        media_root: the folder that rows' paths are relative to; none may lead out of it.
        label_policy: which tokens are supervised.
        questions: "conversation": a row is one sample. "segments": each question of a row with visuals is a sample of
            its own, with the visuals in front. These samples stay together and share one layout, so the batch holds
            their memory once, and only the first brings pixels or features. Rows of text stay conversations.
        history: with "segments", the most earlier questions in front of a question, see `question_parts`.
        encoder: the model's vision encoder; features of another one are refused. None checks their shape only.

    Raises:
        ConfigError: no such choice for `questions`, or `history` without segments.
    """

    def __init__(
        self,
        processor: HourLlavaProcessor,
        media_root: Path,
        *,
        label_policy: LabelPolicy = "answers",
        questions: Questions = "conversation",
        history: int = 0,
        encoder: EncoderIdentity | None = None,
    ) -> None:
        if questions not in get_args(Questions):
            raise ConfigError(f"questions is {questions!r}; choose one of {', '.join(get_args(Questions))}")
        if history and questions != "segments":
            raise ConfigError(f"history is {history}; with questions {questions!r} it has no effect, use segments")
        self.processor, self.media_root = processor, Path(media_root)
        self.label_policy, self.questions, self.history, self.encoder = label_policy, questions, history, encoder
        self._sizes: dict[Path, tuple[int, float]] = {}  # many records are about one video

    def __call__(self, row: Mapping[str, Any], seed: int) -> tuple[Sample, ...]:
        """The row's samples.

        Args:
            row: `{"video": path, "text": record}` or `{"image": PIL image or a list of them, "text": record}`.
            seed: of random forgetting.

        Raises:
            DataError: the record or its features cannot be used, or its path leads out of the media folder.
            VideoError: its video cannot be read.
            InputError: the marks do not match the visuals, or these alone are longer than the model's limit.
        """
        record = _record(row)
        if "video" in row:
            video = self._read_video(self._video_name(row["video"], record))
            first, *others = self._parts(record, 1)
            sample = self._encode(first, seed, video=video)
            again = Video(video.duration_seconds, layout=sample.layout, num_frames=video.num_frames) if others else None
            return (sample, *(self._encode(other, seed, video=again) for other in others))
        images = _images(row, record)
        first, *others = self._parts(record, len(images))
        sample = self._encode(first, seed, images=images)
        return (sample, *(self._encode(other, seed, layout=sample.layout) for other in others))

    def lengths(self, row: Mapping[str, Any]) -> tuple[int, int, int]:
        """Views, visual tokens (kept and recall tokens) and text tokens of all samples of a shard row together.

        Exact, except for a tiled image, where it is the maximum: a line of which chance keeps no token loses its
        newline as well.

        Args:
            row: as above; images may also be bytes of JPEG files, and only their headers are read.

        Raises:
            as `__call__`, as far as headers tell.
        """
        record, config = _record(row), self.processor.config
        if "video" in row:
            num_frames, duration_seconds = self._video_size(self._video_name(row["video"], record))
            layout = video_layout(num_frames, config)
            video = Video(duration_seconds, layout=layout, num_frames=num_frames)
            samples = [self._encode(part, 0, video=video) for part in self._parts(record, 1)]
            return num_frames, *_tokens(samples, layout.num_visual_tokens, config)
        sizes = [image.size for image in _images(row, record)]
        if not sizes:
            return 0, *_tokens([self._encode(Part(record["conversations"]), 0)], 0, config)
        layout = self.processor.layout_of_images(sizes)
        samples = [self._encode(part, 0, layout=layout) for part in self._parts(record, len(sizes))]
        num_views = layout.num_patch_tokens // config.patch_grid**2
        return num_views, *_tokens(samples, _most_kept(layout, config) + layout.num_recall_tokens, config)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides `lengths` besides rows and media: plain data, written beside `lengths.npy`."""
        config = self.processor.config
        forgetting = dataclasses.asdict(config.forgetting)
        num_recall_tokens = config.memaug.num_recall_tokens
        return {
            "questions": self.questions,
            **({"history": self.history} if self.history else {}),  # older files do not name it
            "tokenizer": _tokenizer_digest(self.processor.tokenizer),
            "patch_grid": config.patch_grid,
            "image_size_pixels": config.vision_config.image_size,
            "video_grid": config.video_grid,
            "feature_width": config.vision_feature_width,
            "min_video_frames": config.min_video_frames,
            "max_image_tiles": config.max_image_tiles,
            "max_image_grid_tiles": config.max_image_grid_tiles,
            "max_sequence_tokens": config.max_sequence_tokens,
            "forgetting": {name: value for name, value in forgetting.items() if name != "temporal"},  # same number
            **({RECALL_SETTING: num_recall_tokens} if num_recall_tokens else {}),  # older files do not name them
        }

    def _encode(
        self,
        part: Part,
        seed: int,
        *,
        images: Sequence[Image.Image] = (),
        video: Video | None = None,
        layout: VisualLayout | None = None,
    ) -> Sample:
        return self.processor.encode_record(
            part.turns, images=images, video=video, layout=layout, label_policy=self.label_policy, seed=seed,
            num_context_turns=part.num_context_turns, evidence_seconds=_evidence(part.turns[part.num_context_turns :]),
        )  # fmt: skip

    def _parts(self, record: Mapping[str, Any], num_visuals: int) -> list[Part]:
        turns: Conversation = record["conversations"]
        if self.questions == "conversation" or not num_visuals:
            return [Part(turns)]
        return question_parts(turns, num_visuals, self.history)

    def _video_name(self, name: Any, record: Mapping[str, Any]) -> str:
        """The path below the media root. Shards hold it; rows made straight from records may lack the source."""
        if not isinstance(name, str) or not name:
            raise DataError(f"'video' must be a path, got {name!r:.80}")
        found = find_media(name, self.media_root) or find_media(name, self.media_root, record.get("data_source"))
        return found or name

    def _read_video(self, name: str) -> Video:
        path = self._path(name)
        if name.endswith(FEATURE_SUFFIXES):
            self._video_size(name)  # refuses features of another model
            try:
                memory = load_features(path)
            except MemoryFileError as error:
                raise DataError(str(error)) from error
            return Video(memory.duration_seconds, features=memory.features)
        num_frames, duration_seconds = self._video_size(name)
        size_pixels = (self.processor.config.vision_config.image_size,) * 2
        if drawn := open_registered(path, FPS):
            grid = SampleGrid.of(FPS, 0.0, duration_seconds)
            return Video(duration_seconds, frames=draw_all(drawn, grid, size_pixels))
        with read_frames(path, fps=FPS, size_pixels=size_pixels, num_processes=1, batch_frames=num_frames) as reader:
            batches = [batch.frames for batch in reader]
        if not batches:
            raise DataError(f"{name} shows nothing; copy or convert it again")
        frames = batches[0] if len(batches) == 1 else np.concatenate(batches)  # no second copy of a whole video
        if len(frames) != num_frames:  # damage, or a wrong length in the header, from which the plan was made
            frames = frames[evenly_spaced(len(frames), num_frames)]
        return Video(duration_seconds, frames=frames)

    def _video_size(self, name: str) -> tuple[int, float]:
        """Number of frames and length in seconds that `_read_video` gives, from the file's header."""
        path = self._path(name)
        if path not in self._sizes:
            if len(self._sizes) >= _MAX_KNOWN_VIDEOS:
                self._sizes.clear()
            self._sizes[path] = self._find_video_size(name, path)
        return self._sizes[path]

    def _find_video_size(self, name: str, path: Path) -> tuple[int, float]:
        try:
            num_bytes = path.stat().st_size
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror}); it must lie in {self.media_root}") from error
        if name.endswith(FEATURE_SUFFIXES):
            if num_bytes == 0:
                raise DataError(f"{name} is empty (0 bytes); run `hourllava data features` again, it makes it anew")
            try:
                shape, duration_seconds = feature_size(path)
            except MemoryFileError as error:
                raise DataError(str(error)) from error
            config = self.processor.config
            wanted = (config.video_frame_tokens, config.vision_feature_width)
            if shape[0] < 1 or shape[1:] != wanted:
                raise DataError(
                    f"{name} holds {shape[0]} frames of {shape[1]} tokens of width {shape[2]}; the model needs 1 or "
                    f"more, of {wanted[0]} tokens of width {wanted[1]}: extract the features with its vision tower"
                )
            if self.encoder is not None:
                check_encoder(name, path, self.media_root, self.encoder)
            return shape[0], duration_seconds
        drawn = open_registered(path, FPS)
        duration = (probe(path) if drawn is None else drawn.info).duration_seconds
        if not duration:
            raise DataError(f"{name} does not tell its length, which training needs beforehand; convert it")
        grid = SampleGrid.of(FPS, 0.0, duration)
        return max(grid.stop or 0, 1), duration

    def _path(self, name: str) -> Path:
        return media_path(name, self.media_root)


def question_parts(conversation: Conversation, num_visuals: int, history: int = 0) -> list[Part]:
    """A part for each question with its answer, with the marks of the visuals in front.

    The conversation is cut after every `history` + 1 questions. The questions since the last cut, with their answers,
    are the context of the next one: with a history of 2, one question in three stands alone, one follows another one,
    and one follows two. A first question that already has all marks keeps them where they are.

    Raises:
        DataError: the turns are not questions and answers in alternation.
    """
    speakers = [turn.get("from") for turn in conversation]
    if not speakers or speakers != ["human", "gpt"] * (len(speakers) // 2):
        raise DataError(f"questions can be told apart only where human and gpt take turns, got {speakers!r:.80}")
    parts: list[Part] = []
    for number in range(0, len(conversation), 2):
        num_context_turns = 2 * (number // 2 % (history + 1))
        turns = list(conversation[number - num_context_turns : number + 2])
        for place in range(0, len(turns), 2):
            text, num_marks = turns[place]["value"], 0 if place else num_visuals
            if text.count(RECORD_MARK) != num_marks:
                text = f"{RECORD_MARK * num_marks}\n{text.replace(RECORD_MARK, '').strip()}".lstrip("\n")
                turns[place] = {"from": "human", "value": text}
        parts.append(Part(turns, num_context_turns))
    return parts


def _record(row: Mapping[str, Any]) -> Mapping[str, Any]:
    record = row.get("text")
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(turns, list) or not turns:
        raise DataError("a row needs 'text': a record with a list 'conversations'")
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise DataError(f"a turn is {{'from', 'value'}}, both text; got {turn!r:.80}")
    if "video" not in row and "image" not in row:
        raise DataError(f"a row needs a column 'video' or 'image'; it has {', '.join(map(str, row))}")
    return record


def _evidence(conversation: Conversation) -> list[tuple[float, float]]:
    """The evidence spans of all answers, in seconds; none if the record has none."""
    try:
        return [(float(start), float(end)) for turn in conversation for start, end in turn.get("evidence") or ()]
    except (TypeError, ValueError) as error:
        raise DataError("a turn's 'evidence' is a list of [start, end], in seconds") from error


def _images(row: Mapping[str, Any], record: Mapping[str, Any]) -> list[Image.Image]:
    """The images of a row; none if its record has none, so that the picture only fills the column."""
    if not record.get("image"):
        return []
    found = row["image"] if isinstance(row["image"], list) else [row["image"]]
    try:
        return [Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image for image in found]
    except CODING_ERRORS as error:
        raise DataError(f"an image of the row is damaged: {error}; write the shard again") from error


def _tokens(samples: Sequence[Sample], most_kept: int, config: HourLlavaConfig) -> tuple[int, int]:
    """Visual and text tokens of all samples together, after each is cut at the model's limit."""
    text = 0
    for sample in samples:
        num_text = int((sample.input_ids != config.visual_token_id).sum())
        text += min(num_text, config.max_sequence_tokens - most_kept)
    return most_kept * len(samples), text


def _most_kept(layout: VisualLayout, config: HourLlavaConfig) -> int:
    """Kept tokens of images if chance keeps a token of every line of a tile grid."""
    kept = len(layout.kept_index)
    if config.forgetting.spatial == "uniform":
        return kept
    newlines = int((layout.memory_index == NEWLINE).sum())
    kept_newlines = int((layout.memory_index[layout.kept_index] == NEWLINE).sum())
    return kept - kept_newlines + min(newlines, kept - kept_newlines)


def _tokenizer_digest(tokenizer: Any) -> str:
    """Digest of all that decides the tokens of a text; not of the padding and truncation of the last call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        parts: Any = sorted(tokenizer.get_vocab().items())
    else:
        parts = {
            name: part for name, part in json.loads(backend.to_str()).items() if name not in ("padding", "truncation")
        }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
