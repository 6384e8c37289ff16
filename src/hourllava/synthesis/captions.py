"""Stage `captions`: each clip in six aspects, written by a captioner that sees its frames."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hourllava.synthesis.clips import Clip, PlannedVideo
from hourllava.synthesis.folder import SynthFolder
from hourllava.synthesis.frames import ClipInput
from hourllava.synthesis.models.asking import Asker
from hourllava.synthesis.models.request import Picture, Request, Stretch
from hourllava.synthesis.prompting import Prompt
from hourllava.synthesis.rows import ItemFault, RowFile, digest
from hourllava.synthesis.settings import SynthSettings
from hourllava.synthesis.shapes import ASPECTS, ClipCaption
from hourllava.synthesis.stage import Item
from hourllava.synthesis.times import clock

STAGE = "captions"
KIND = "clip_caption"
UNCHANGED = "nothing changes"
MISSING = "not described"


@dataclass(frozen=True)
class Captioned:
    """A clip with its caption.

    Attributes:
        clip: which one.
        texts: aspect -> text; None: unchanged, or the captioner failed.
    """

    clip: Clip
    texts: dict[str, str] | None

    def line(self, aspects: Iterable[str] = ASPECTS) -> dict[str, Any]:
        """The clip as data of a prompt."""
        start, end = clock(self.clip.start_seconds), clock(self.clip.end_seconds)
        place = {"part": self.clip.number + 1, "from": start, "to": end}
        if self.texts is None:
            return place | {"note": UNCHANGED if self.clip.is_unchanged else MISSING}
        return place | {aspect: self.texts[aspect] for aspect in aspects}


class CaptionStage:
    """Makes and reads the captions of clips.

    Args:
        folder: of the run.
        settings: of the run.
        prompt: of the captioner.
        asker: the captioner; None to read only.
        model_name: of the captioner.
    """

    def __init__(
        self, folder: SynthFolder, settings: SynthSettings, prompt: Prompt, model_name: str, asker: Asker | None = None
    ) -> None:
        self._settings, self._prompt, self._asker = settings, prompt, asker
        self._max_tokens = settings.sampling.max_tokens[KIND]
        self._maker = folder.makers.add(
            STAGE,
            model=model_name,
            prompt=prompt.digest,
            frames=settings.frames.model_dump(),
            recurrent=settings.clips.recurrent,
            temperature=settings.sampling.caption_temperature,
            seed=settings.seed,
        )
        self._before: dict[str, asyncio.Future[str]] = {}

    def items(self, videos: Iterable[PlannedVideo]) -> Iterator[Item]:
        """An item for each clip that has something new."""
        for planned in videos:
            for clip, key in self._keys(planned):
                name = f"{planned.video.id} clip {clip.number}"
                yield Item(name, key, self._maker, ClipInput(planned, clip))

    def captions_of(self, planned: PlannedVideo, rows: RowFile) -> list[Captioned]:
        """The captions of a video's clips, from the rows."""
        keys = dict(self._keys(planned))
        found = []
        for clip in planned.clips:
            row = rows.get(keys[clip]) if clip in keys else None
            found.append(Captioned(clip, row.value if row is not None else None))
        return found

    def _keys(self, planned: PlannedVideo) -> Iterator[tuple[Clip, str]]:
        before = ""
        for clip in planned.clips:
            if not clip.is_unchanged:
                # With the summary before as context, a caption depends on all captions before it.
                chain = [before] if self._settings.clips.recurrent else []
                key = digest(self._maker, planned.content, clip.start_seconds, clip.end_seconds, *chain)
                before = key
                yield clip, key

    def work(self, rows: RowFile) -> Callable[[Item], Awaitable[dict[str, Any]]]:
        """The work of `run_stage`, with the rows that recurrent captions look into."""

        async def make(item: Item) -> dict[str, Any]:
            found: ClipInput = item.input
            if not isinstance(found.pictures, list | tuple):
                raise ItemFault("clip cannot be read", str(found.pictures))
            assert self._asker is not None
            context = await self._context(found, rows)
            try:
                answer = await self._asker.ask(self._request(found, found.pictures, context), item.id, ClipCaption)
            except ItemFault:
                self._tell(found, "")
                raise
            self._tell(found, answer.summary)
            return answer.model_dump()

        return make

    def _request(self, found: ClipInput, pictures: Sequence[Picture], context: str) -> Request:
        frames: list[str | Picture] = []
        for picture in pictures:
            frames += [clock(picture.seconds), picture]
        clip = found.clip
        system, parts = self._prompt.filled(
            start=clock(clip.start_seconds), end=clock(clip.end_seconds), frames=frames, context=context
        )
        return Request(
            KIND,
            system,
            parts,
            ClipCaption,
            self._max_tokens,
            self._settings.sampling.caption_temperature,
            self._settings.seed,
            Stretch(
                found.planned.video.path, clip.start_seconds, clip.end_seconds, found.planned.player_offset_seconds
            ),
        )

    async def _context(self, found: ClipInput, rows: RowFile) -> str:
        if not self._settings.clips.recurrent:
            return ""
        summary = ""
        earlier = [pair for pair in self._keys(found.planned) if pair[0].number < found.clip.number]
        if earlier:
            clip, key = earlier[-1]
            row = rows.get(key)
            if row is not None:
                summary = row.value["summary"] if row.value else ""
            else:
                summary = await self._future(found.planned, clip)
        return f"Just before, the video showed: {summary}" if summary else ""

    def _future(self, planned: PlannedVideo, clip: Clip) -> asyncio.Future[str]:
        name = f"{planned.video.id} {clip.number}"
        return self._before.setdefault(name, asyncio.get_running_loop().create_future())

    def _tell(self, found: ClipInput, summary: str) -> None:
        if self._settings.clips.recurrent:
            future = self._future(found.planned, found.clip)
            if not future.done():
                future.set_result(summary)
