"""Stages `events`, `event_captions` and `summaries`: from captions of clips to titled events and the whole video."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hourllava.synthesis.captions import Captioned
from hourllava.synthesis.clips import PlannedVideo
from hourllava.synthesis.folder import SynthFolder
from hourllava.synthesis.models.asking import Asker
from hourllava.synthesis.models.request import Request
from hourllava.synthesis.prompting import Prompt, data_block
from hourllava.synthesis.rows import ItemFault, RowFile, digest
from hourllava.synthesis.settings import SynthSettings
from hourllava.synthesis.shapes import EventCaption, EventList, EventTime, Summary
from hourllava.synthesis.stage import Item
from hourllava.synthesis.times import Span, clock, read_time

EVENTS, EVENT_CAPTIONS, SUMMARIES = "events", "event_captions", "summaries"
MAX_PARTS = 150  # of a video in one request for its events
SNAP_SECONDS = 3.0  # from the bound of an event to a cut
_MAX_CUTS = 200  # told in a request
_SPLIT_ASPECTS = ("temporality", "scene", "summary")
_END_SLACK_SECONDS = 2.0


@dataclass(frozen=True)
class EventSpan:
    """An event of a video.

    Attributes:
        start_seconds, end_seconds: from the first picture.
        title: of the event.
        caption: of the event; empty before it is written, and if that failed.
    """

    start_seconds: float
    end_seconds: float
    title: str
    caption: str = ""

    @property
    def span(self) -> Span:
        """Start and end in seconds."""
        return self.start_seconds, self.end_seconds

    def line(self, number: int) -> dict[str, Any]:
        """The event as data of a prompt; numbers begin with 1."""
        place = {"event": number, "from": clock(self.start_seconds), "to": clock(self.end_seconds), "title": self.title}
        return place | ({"caption": self.caption} if self.caption else {})


class Writer:
    """What the stages of the writer share: its model, prompts and settings.

    Args:
        folder, settings: of the run.
        prompts: by name.
        model_name: of the writer.
        asker: the writer; None to read only.
    """

    def __init__(
        self,
        folder: SynthFolder,
        settings: SynthSettings,
        prompts: dict[str, Prompt],
        model_name: str,
        asker: Asker | None = None,
    ) -> None:
        self.folder, self.settings, self.prompts = folder, settings, prompts
        self.model_name, self._asker = model_name, asker

    @property
    def asker(self) -> Asker:
        """The writer's model."""
        assert self._asker is not None
        return self._asker

    def maker(self, stage: str, kind: str, temperature: float, **more: Any) -> str:
        """The digest of what makes the rows of a stage."""
        return self.folder.makers.add(
            stage,
            model=self.model_name,
            prompt=self.prompts[kind].digest,
            temperature=temperature,
            seed=self.settings.seed,
            **more,
        )

    def request(self, kind: str, shape: type[Any], temperature: float, **values: Any) -> Request:
        """A request without pictures."""
        system, parts = self.prompts[kind].filled(**values)
        sampling = self.settings.sampling
        return Request(kind, system, parts, shape, sampling.max_tokens[kind], temperature, self.settings.seed)


class EventStage:
    """Makes and reads the events of videos: titles and times."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._temperature = writer.settings.sampling.caption_temperature
        self._maker = writer.maker(EVENTS, "events", self._temperature, max_parts=MAX_PARTS, snap=SNAP_SECONDS)

    def item(self, planned: PlannedVideo, captions: Sequence[Captioned]) -> Item:
        """The item of a video; its key changes when a caption does."""
        lines = [captioned.line(_SPLIT_ASPECTS) for captioned in captions]
        key = digest(self._maker, planned.content, planned.duration_seconds, lines, planned.cuts)
        return Item(planned.video.id, key, self._maker, (planned, captions))

    def events_of(self, item: Item, rows: RowFile) -> list[EventSpan]:
        """The events of a video, from its row; none if there is none."""
        row = rows.get(item.key)
        if row is None or row.value is None:
            return []
        return [EventSpan(**event) for event in row.value["events"]]

    async def work(self, item: Item) -> dict[str, Any]:
        """The events of a video; a long one is divided part by part."""
        planned, captions = item.input
        if not any(captioned.texts for captioned in captions):
            raise ItemFault("no captions", "no clip of the video has a caption")
        found: list[EventSpan] = []
        first, start = 0, captions[0].clip.start_seconds
        while True:
            window = captions[first : first + MAX_PARTS]
            events = await self._divide(item, planned, window, start)
            if first + MAX_PARTS >= len(captions):
                return {"events": [vars(event) for event in (*found, *events)]}
            begin, end = window[0].clip.start_seconds, window[-1].clip.end_seconds
            start = end
            if events[-1].start_seconds > (begin + end) / 2:
                # The last event may go on: it is found again, with the parts that follow.
                start = events.pop().start_seconds
            found += events
            first = next(k for k in range(first + 1, len(captions)) if captions[k].clip.end_seconds > start)

    async def _divide(
        self, item: Item, planned: PlannedVideo, window: Sequence[Captioned], start_seconds: float
    ) -> list[EventSpan]:
        end = window[-1].clip.end_seconds
        cuts = [clock(cut) for cut in planned.cuts if start_seconds < cut < end][:_MAX_CUTS]
        request = self._writer.request(
            "events",
            EventList,
            self._temperature,
            duration=clock(planned.duration_seconds),
            start=clock(start_seconds),
            end=clock(end),
            clips=data_block("parts", [captioned.line(_SPLIT_ASPECTS) for captioned in window]),
            cuts=f"The picture is cut at: {', '.join(cuts)}." if cuts else "",
        )
        bounds = {bound for captioned in window for bound in (captioned.clip.start_seconds, captioned.clip.end_seconds)}

        def arrange(answer: EventList) -> list[EventSpan]:
            return arranged(answer.events, (start_seconds, end), planned.cuts, bounds)

        answer = await self._writer.asker.ask(request, item.id, EventList, check=arrange)
        return arrange(answer)


def arranged(events: Sequence[EventTime], within: Span, cuts: Sequence[float], vague: set[float]) -> list[EventSpan]:
    """Events in order, without overlaps, within a stretch of video.

    Args:
        events: as a model wrote them.
        within: where they must lie.
        cuts: seconds of cuts.
        vague: bounds that only say in which clip something changes; they move to a cut within 3 seconds.

    Raises:
        ValueError: in words for the model: no events, times that are none, beyond the stretch, or that overlap.
    """
    start, end = within
    spans = []
    for event in events:
        span = read_time(event.start), read_time(event.end)
        if span[1] <= span[0]:
            raise ValueError(f"the event {event.title!r} ends before it starts")
        if span[0] < start - _END_SLACK_SECONDS or span[1] > end + _END_SLACK_SECONDS:
            raise ValueError(
                f"the event {event.title!r} ({clock(span[0])} to {clock(span[1])}) lies outside "
                f"{clock(start)} to {clock(end)}"
            )
        # Clocks in prompts have no fractions: an event that reaches the last whole second reaches the end.
        last = end if span[1] > end - 1 else span[1]
        spans.append(EventSpan(max(start, span[0]), last, event.title))
    if not spans:
        raise ValueError("there is no event")
    spans.sort(key=lambda event: event.start_seconds)
    for before, after in pairwise(spans):
        overlap = before.end_seconds - after.start_seconds
        if overlap > 0.5 * min(e.end_seconds - e.start_seconds for e in (before, after)):
            raise ValueError(f"the events {before.title!r} and {after.title!r} overlap")
    return list(_without_overlaps(spans, cuts, vague))


def _without_overlaps(spans: Sequence[EventSpan], cuts: Sequence[float], vague: set[float]) -> Iterator[EventSpan]:
    bounds = [[event.start_seconds, event.end_seconds] for event in spans]
    for (_, end), (start, _), k in zip(bounds, bounds[1:], range(len(bounds))):
        if end > start:
            bounds[k][1] = bounds[k + 1][0] = _snapped((start + end) / 2, cuts, (end - start) / 2)
        elif end == start and end in vague:
            bounds[k][1] = bounds[k + 1][0] = _snapped(end, cuts, SNAP_SECONDS)
    for event, (start, end) in zip(spans, bounds):
        if end > start:
            yield EventSpan(start, end, event.title)


def _snapped(seconds: float, cuts: Sequence[float], most: float) -> float:
    nearest = min(cuts, key=lambda cut: abs(cut - seconds), default=None)
    return nearest if nearest is not None and abs(nearest - seconds) <= most else seconds


class EventCaptionStage:
    """Makes and reads the captions of events."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._temperature = writer.settings.sampling.caption_temperature
        self._maker = writer.maker(EVENT_CAPTIONS, "event_caption", self._temperature)

    def items(
        self, planned: PlannedVideo, events: Sequence[EventSpan], captions: Sequence[Captioned]
    ) -> Iterator[Item]:
        """An item for each event."""
        for k, event in enumerate(events):
            neighbours = {
                name: events[j].title for name, j in (("before", k - 1), ("after", k + 1)) if 0 <= j < len(events)
            }
            lines = [
                captioned.line()
                for captioned in captions
                if captioned.clip.start_seconds < event.end_seconds and captioned.clip.end_seconds > event.start_seconds
            ]
            request = self._writer.request(
                "event_caption",
                EventCaption,
                self._temperature,
                event=data_block("event", [event.line(k + 1) | neighbours]),
                clips=data_block("parts", lines),
            )
            key = digest(self._maker, request.system, request.text)
            yield Item(f"{planned.video.id} event {k + 1}", key, self._maker, request)

    def captioned(self, items: Iterable[Item], events: Sequence[EventSpan], rows: RowFile) -> list[EventSpan]:
        """The events with their captions, from the rows."""
        found = []
        for item, event in zip(items, events):
            row = rows.get(item.key)
            caption = row.value["caption"] if row is not None and row.value is not None else ""
            found.append(EventSpan(event.start_seconds, event.end_seconds, event.title, caption))
        return found

    async def work(self, item: Item) -> dict[str, Any]:
        """The caption of an event."""
        answer = await self._writer.asker.ask(item.input, item.id, EventCaption)
        return answer.model_dump()


class SummaryStage:
    """Makes and reads the descriptions of whole videos."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._temperature = writer.settings.sampling.caption_temperature
        self._maker = writer.maker(SUMMARIES, "summary", self._temperature)

    def item(self, planned: PlannedVideo, events: Sequence[EventSpan]) -> Item:
        """The item of a video."""
        request = self._writer.request(
            "summary",
            Summary,
            self._temperature,
            duration=clock(planned.duration_seconds),
            events=data_block("events", [event.line(k + 1) for k, event in enumerate(events)]),
        )
        return Item(planned.video.id, digest(self._maker, request.system, request.text), self._maker, request)

    def summary_of(self, item: Item, rows: RowFile) -> str:
        """The summary of a video, from its row; empty if there is none."""
        row = rows.get(item.key)
        return row.value["summary"] if row is not None and row.value is not None else ""

    async def work(self, item: Item) -> dict[str, Any]:
        """The summary of a video."""
        answer = await self._writer.asker.ask(item.input, item.id, Summary)
        return answer.model_dump()
