"""A run of synthesis: the stages in their order, over the videos of a folder.

    clips -> captions -> events -> event captions -> summaries -> questions -> checks -> records

Each stage goes over all videos before the next begins, because captioner and writer are often different servers, or one
server that is loaded with one model after the other. What is known of one video is read from the rows when it is
needed; the questions of all videos are in memory only for the last checks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hourllava.errors import ConfigError
from hourllava.processes import usable_cores
from hourllava.synthesis import captions, clips, events, questions, verdicts
from hourllava.synthesis.candidates import Candidate, candidates_of
from hourllava.synthesis.captions import CaptionStage
from hourllava.synthesis.checks.run import Ledger, check_video
from hourllava.synthesis.clips import PlannedVideo, planned_videos
from hourllava.synthesis.events import EventCaptionStage, EventStage, SummaryStage, Writer
from hourllava.synthesis.folder import STAGES, SynthFolder
from hourllava.synthesis.frames import FrameFeed
from hourllava.synthesis.models.asking import Asker
from hourllava.synthesis.models.request import Model
from hourllava.synthesis.models.spending import Spending
from hourllava.synthesis.progress import StageBar
from hourllava.synthesis.prompting import Prompt
from hourllava.synthesis.questions import SUMMARY_TASK, QuestionStage, Told
from hourllava.synthesis.rows import RowFile
from hourllava.synthesis.settings import SynthSettings
from hourllava.synthesis.stage import Feed, Item, StageReport, Work, run_stage
from hourllava.synthesis.verdicts import VerdictStage
from hourllava.synthesis.videos import Video

_SPARE = 8  # items at work beyond the model's places: those that wait before they try again


@dataclass(frozen=True)
class Cast:
    """The models of a run, as they are named on the command line; None: not given."""

    captioner: str | None = None
    writer: str | None = None
    verifier: str | None = None


def model_name(spec: str | None) -> str:
    """The name that a model has in provenance, without the addresses of its servers."""
    name, at, _ = (spec or "").rpartition("@")
    return name if at else spec or ""


class Run:
    """The state of a run.

    Args:
        folder: held by the caller.
        videos: in order.
        settings: of the run.
        prompts: by name.
        cast: the models' names.
        open_one: opens a model by its name.
        spending: counts what is spent.
        retry_errors: whether items that were given up are tried again.
        shows_progress: a bar on stderr.
    """

    def __init__(
        self,
        folder: SynthFolder,
        videos: Sequence[Video],
        settings: SynthSettings,
        prompts: dict[str, Prompt],
        cast: Cast,
        open_one: Callable[[str], Model],
        spending: Spending,
        *,
        retry_errors: bool = False,
        shows_progress: bool = True,
    ) -> None:
        self.folder, self.videos, self.settings, self.cast = folder, videos, settings, cast
        self.prompts, self._open, self.spending = prompts, open_one, spending
        self._retry_errors, self._shows_progress = retry_errors, shows_progress
        self._models: dict[str, Asker] = {}
        self._files = ExitStack()

    # ------------------------------------------------------------------------------------------------ the stages

    async def make(self, until: str) -> list[StageReport]:
        """Run the stages up to one of them, `records` excluded.

        Raises:
            StopRun: the run cannot go on.
            ConfigError: a stage's model was not given.
        """
        reports = []
        async with AsyncExitStack() as opened:
            opened.push_async_callback(self._close_models)
            for stage in STAGES[: STAGES.index(until) + 1]:
                if stage != "records" and not (stage == "checks" and self.verdict_stage is None):
                    reports.append(await getattr(self, f"_make_{stage}")())
        return reports

    async def _make_clips(self) -> StageReport:
        items = clips.clip_items(self.videos, self.folder, self.settings.clips)
        return await self._stage(clips.STAGE, items, clips.plan_video, len(self.videos), usable_cores())

    async def _make_captions(self) -> StageReport:
        asker = self._asker("captioner")
        stage = self._captions(asker)
        feed = FrameFeed(self.settings.frames, max(1, usable_cores() // 2))
        rows = self.rows(captions.STAGE)
        total = sum(not clip.is_unchanged for planned in self.planned() for clip in planned.clips)
        places = asker.model.concurrency + _SPARE
        return await self._stage(captions.STAGE, stage.items(self.planned()), stage.work(rows), total, places, feed)

    async def _make_events(self) -> StageReport:
        stage = EventStage(self._writer(self._asker("writer")))
        items = (stage.item(planned, self._captions().captions_of(planned, self.rows(captions.STAGE)))
                 for planned in self.planned())  # fmt: skip
        return await self._written(events.EVENTS, items, stage.work, len(self.videos))

    async def _make_event_captions(self) -> StageReport:
        stage = EventCaptionStage(self._writer(self._asker("writer")))
        items = (item for planned in self.planned() for item in self._event_items(stage, planned))
        total = sum(len(self._events(planned)) for planned in self.planned())
        return await self._written(events.EVENT_CAPTIONS, items, stage.work, total)

    async def _make_summaries(self) -> StageReport:
        stage = SummaryStage(self._writer(self._asker("writer")))
        items = (stage.item(planned, found) for planned in self.planned() if (found := self._told_events(planned)))
        return await self._written(events.SUMMARIES, items, stage.work, len(self.videos))

    async def _make_questions(self) -> StageReport:
        stage = QuestionStage(self._writer(self._asker("writer")))
        items = (item for told in self.told() for item in stage.items(told))
        total = sum(1 for told in self.told() for _ in self.question_stage.items(told))
        return await self._written(questions.STAGE, items, stage.work, total)

    async def _make_checks(self) -> StageReport:
        stage = VerdictStage(self._writer(self._asker("verifier"), self.cast.verifier))
        items = (item for told in self.told() for item in stage.items(told, self.checked(told)))
        total = sum(len(self.checked(told)) for told in self.told())
        return await self._written(verdicts.STAGE, items, stage.work, total, "verifier")

    async def _written(
        self, name: str, items: Iterable[Item], work: Work, total: int, role: str = "writer"
    ) -> StageReport:
        return await self._stage(name, items, work, total, self._asker(role).model.concurrency + _SPARE)

    async def _stage(
        self, name: str, items: Iterable[Item], work: Work, total: int, concurrency: int, feed: Feed | None = None
    ) -> StageReport:
        with StageBar(name, total, self.spending, is_shown=self._shows_progress) as bar:
            return await run_stage(
                name,
                items,
                work,
                self.rows(name),
                concurrency=concurrency,
                retry_errors=self._retry_errors,
                feed=feed,
                on_row=bar.tell,
            )

    # ------------------------------------------------------------------------------------------ what is known so far

    def rows(self, stage: str) -> RowFile:
        """The rows of a stage; its file stays open."""
        name = f"_rows_{stage}"
        if name not in self.__dict__:
            self.__dict__[name] = self.folder.rows(stage)
            self._files.callback(self.__dict__[name].close)
        found: RowFile = self.__dict__[name]
        return found

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def planned(self) -> Iterator[PlannedVideo]:
        """The videos that can be read."""
        return planned_videos(self.videos, self.folder, self.settings.clips, self.rows(clips.STAGE))

    def told(self) -> Iterator[Told]:
        """All that is known of each video, one after the other."""
        stage = SummaryStage(self._writer())
        for planned in self.planned():
            found = self._told_events(planned)
            summary = stage.summary_of(stage.item(planned, found), self.rows(events.SUMMARIES)) if found else ""
            yield Told(planned, self._captions().captions_of(planned, self.rows(captions.STAGE)), found, summary)

    @cached_property
    def question_stage(self) -> QuestionStage:
        """Gives the items of questions."""
        return QuestionStage(self._writer())

    @cached_property
    def verdict_stage(self) -> VerdictStage | None:
        """Gives the items of checks; None without a verifier, or if its checks are off."""
        wanted = self.settings.checks.verifier or self.settings.checks.guessing
        return VerdictStage(self._writer(None, self.cast.verifier)) if self.cast.verifier and wanted else None

    def candidates(self, told: Told) -> list[Candidate]:
        """The questions of a video, as they were written."""
        items = list(self.question_stage.items(told))
        wants_summary = SUMMARY_TASK in self.settings.questions.tasks and "open" in self.settings.questions.formats
        return list(
            candidates_of(told, items, self.rows(questions.STAGE), seed=self.settings.seed, wants_summary=wants_summary)
        )

    def checked(self, told: Told, ledger: Ledger | None = None) -> list[Candidate]:
        """The questions of a video that pass the checks that need no model."""
        return check_video(self.candidates(told), self.settings.checks, ledger or Ledger())

    def verdicts(self, told: Told, candidates: Sequence[Candidate]) -> dict[str, tuple[str, dict[str, Any] | None]]:
        """Question id -> key and content of the verifier's row."""
        stage = self.verdict_stage
        if stage is None:
            return {}
        rows = self.rows(verdicts.STAGE)
        return {item.id: (item.key, stage.verdict_of(item, rows)) for item in stage.items(told, candidates)}

    def _events(self, planned: PlannedVideo) -> list[events.EventSpan]:
        stage = EventStage(self._writer())
        known = self._captions().captions_of(planned, self.rows(captions.STAGE))
        return stage.events_of(stage.item(planned, known), self.rows(events.EVENTS))

    def _event_items(self, stage: EventCaptionStage, planned: PlannedVideo) -> Iterator[Item]:
        known = self._captions().captions_of(planned, self.rows(captions.STAGE))
        return stage.items(planned, self._events(planned), known)

    def _told_events(self, planned: PlannedVideo) -> list[events.EventSpan]:
        stage = EventCaptionStage(self._writer())
        found = self._events(planned)
        return stage.captioned(self._event_items(stage, planned), found, self.rows(events.EVENT_CAPTIONS))

    # ------------------------------------------------------------------------------------------------ the models

    def _captions(self, asker: Asker | None = None) -> CaptionStage:
        name = model_name(self.cast.captioner)
        return CaptionStage(self.folder, self.settings, self.prompts["clip_caption"], name, asker)

    def _writer(self, asker: Asker | None = None, spec: str | None = None) -> Writer:
        return Writer(self.folder, self.settings, self.prompts, model_name(spec or self.cast.writer), asker)

    def _asker(self, role: str) -> Asker:
        spec = getattr(self.cast, role)
        if spec is None:
            raise ConfigError(f"this stage needs --{role}; name a model, or stop before it with --until")
        if spec not in self._models:
            self._models[spec] = Asker(self._open(spec), self.spending, self.settings.retries)
        return self._models[spec]

    async def _close_models(self) -> None:
        for asker in self._models.values():
            await asker.model.close()
