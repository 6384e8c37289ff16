"""Questions of a benchmark to a model: what it is asked by a protocol, and what it gives back.

Here alone the benchmarks meet our model; `served` asks one behind a server. `ask_together` is the one line that chooses
how several questions are asked. A run has one condition:

    video        the library's normal use: the video is watched, then asked about
    frames_only  MemAug finds the kept tokens only, which the decoder sees anyway
    blind        the questions alone, without a video: what the wording gives away
"""

import contextlib
import functools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hourllava import __version__
from hourllava.errors import ConfigError, DataError, HourLlavaError, InputError, VideoError
from hourllava.evaluation.benchmarks.cues import Sampling, cues_of_part, timed_texts
from hourllava.evaluation.benchmarks.protocols import Protocol, Said
from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.raw import RawAnswer
from hourllava.evaluation.scores import Condition
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.ready import make_ready
from hourllava.inference.questions.answers import Answer
from hourllava.inference.questions.evidence import Span
from hourllava.inference.questions.subtitles import Cue
from hourllava.video import VideoInfo, probe

QUESTIONS_AT_ONCE = 16
Result = RawAnswer | tuple[Question, HourLlavaError]
"""An answer, or a question and why it has none."""
_LEAST_PROBABILITY = 1e-30  # of a letter, so that its logarithm is finite


@dataclass(frozen=True)
class AskWay:
    """How an answer is written; see `hourllava.inference.questions.options.AskOptions`."""

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def ask_together(
    engine: HourLlava, memory: Memory | None, prompts: Sequence[str], way: AskWay
) -> Iterator[Answer | InputError]:
    """Answer several prompts about one memory: each gets the answer, or the refusal, that it gets alone."""
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(engine.stream(memory, prompt, **asdict(way))) for prompt in prompts]
        for stream in streams:
            try:
                yield stream.answer
            except InputError as error:  # it is too long
                yield error


@dataclass(frozen=True)
class Asking:
    """How a run asks.

    Attributes:
        protocol: the exact prompts.
        subtitles: whether they hold subtitles.
        condition: what the model has seen.
    """

    protocol: Protocol
    subtitles: bool = False
    condition: Condition = "video"


def engine_for(engine: HourLlava, condition: Condition) -> HourLlava:
    """The engine that asks under a condition; it shares the model.

    Raises:
        ConfigError: the model has no MemAug, so `frames_only` would be `video`.
    """
    if condition != "frames_only":
        return engine
    config = engine.model.config
    if not config.memaug.num_blocks or config.forgetting.temporal == "question":
        raise ConfigError("--condition frames_only needs a model with MemAug whose kept frames are those of the video")
    return engine.with_ready(functools.partial(make_ready, share=0.0))


@dataclass(frozen=True)
class Watched:
    """A video that was watched.

    Attributes:
        memory: of it; None if the questions are asked blind.
        path: of its file.
        watch_seconds: that it took.
    """

    memory: Memory | None
    path: Path
    watch_seconds: float

    @functools.cached_property
    def _info(self) -> VideoInfo:
        return probe(self.path)

    def facts(self, question: Question) -> dict[str, Any]:
        """The fields of `RawAnswer` that say what was watched."""
        memory = self.memory
        return {
            "num_frames": len(memory) if memory else 0, "fps": memory.fps if memory else 0.0,
            "duration_seconds": memory.duration_seconds if memory else question.duration_seconds or 0.0,
            "watch_seconds": self.watch_seconds, "version": __version__,
        }  # fmt: skip

    def sampling(self, question: Question, *, reads_file: bool) -> Sampling:
        """Which moments were looked at.

        Raises:
            VideoError: the file's frame rate or length is needed and not known.
        """
        memory = self.memory
        assert memory is not None  # nobody asks blind with subtitles
        duration = question.duration_seconds or memory.duration_seconds
        frames = (memory.sample_seconds + memory.player_offset_seconds).tolist()
        if not reads_file:
            return Sampling(frames, duration, memory.fps, len(memory))
        info = self._info
        if not info.average_fps or not info.duration_seconds:
            raise VideoError(f"{self.path} does not say its frame rate and length, which the protocol needs")
        return Sampling(frames, duration, info.average_fps, max(1, round(info.duration_seconds * info.average_fps)))


@dataclass(frozen=True)
class _Prepared:
    question: Question
    prompt: str
    cues: Sequence[Cue]
    had_subtitles: bool


def answers_about(
    engine: HourLlava, watched: Watched, questions: Sequence[Question], data: Path, asking: Asking
) -> Iterator[Result]:
    """The answers to questions about one video, or why there is none.

    Args:
        engine: the model, as `engine_for` gives it.
        watched: the video.
        questions: about it.
        data: the benchmark's data folder.
        asking: how they are asked.
    """
    prepared: list[_Prepared] = []
    for question in questions:
        try:
            prepared.append(_prepare(question, watched, data, asking.protocol, asking.subtitles))
        except (DataError, VideoError) as error:
            yield question, error
    ask = _choose if asking.protocol.is_likelihood else _write
    for k in range(0, len(prepared), QUESTIONS_AT_ONCE):
        yield from ask(engine, watched, prepared[k : k + QUESTIONS_AT_ONCE], asking.protocol)


def _prepare(question: Question, watched: Watched, data: Path, protocol: Protocol, subtitles: bool) -> _Prepared:
    said: Said = "" if subtitles else None
    cues: Sequence[Cue] = ()
    if subtitles and question.subtitles is None and question.needs_subtitles:
        raise DataError(f"the subtitles of {question.video} are missing")
    if subtitles and question.subtitles is not None:
        path = data / question.subtitles
        sampling = watched.sampling(question, reads_file=protocol.reads_file)
        if protocol.is_likelihood:
            cues = cues_of_part(timed_texts(path), question.subtitles_start_seconds, sampling.duration_seconds)
        elif protocol.said is not None:
            said = protocol.said(question, path, sampling)
    return _Prepared(question, protocol.prompt(question, said).as_one_turn(), cues, bool(said or cues))


def _write(engine: HourLlava, watched: Watched, prepared: Sequence[_Prepared], protocol: Protocol) -> Iterator[Result]:
    way = AskWay(protocol.max_new_tokens, (protocol.stop,) if protocol.stop else ())
    answers = ask_together(engine, watched.memory, [one.prompt for one in prepared], way)
    start = time.perf_counter()
    for one, answer in zip(prepared, answers, strict=True):
        seconds, start = time.perf_counter() - start, time.perf_counter()
        if isinstance(answer, InputError):
            yield one.question, answer
            continue
        yield RawAnswer(
            question=one.question, prompt=one.prompt, output=answer.text, evidence=_intervals(answer.evidence),
            num_prompt_tokens=answer.num_prompt_tokens, num_new_tokens=answer.num_new_tokens,
            finish_reason=answer.finish_reason, had_subtitles=one.had_subtitles, ask_seconds=seconds,
            **watched.facts(one.question),
        )  # fmt: skip


def _choose(engine: HourLlava, watched: Watched, prepared: Sequence[_Prepared], protocol: Protocol) -> Iterator[Result]:
    for one in prepared:
        start = time.perf_counter()
        try:
            choice = engine.choose(watched.memory, one.prompt, one.question.options, subtitles=one.cues)
        except InputError as error:  # it is too long
            yield one.question, error
            continue
        yield RawAnswer(
            question=one.question, prompt=one.prompt, output=choice.letter, evidence=_intervals(choice.evidence),
            log_probabilities=tuple(math.log(max(share, _LEAST_PROBABILITY)) for share in choice.probabilities),
            had_subtitles=one.had_subtitles, ask_seconds=time.perf_counter() - start, **watched.facts(one.question),
        )  # fmt: skip


def _intervals(spans: Sequence[Span]) -> tuple[tuple[float, float], ...]:
    return tuple((span.start_seconds, span.end_seconds) for span in spans)
