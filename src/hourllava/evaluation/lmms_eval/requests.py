"""What a harness asks: requests in any order become one watching per video, and replies in the order of the requests.

Equal requests are asked once. A video that cannot be watched, or a prompt that is too long, gets an empty reply, which
every rule scores as wrong; how many there were is said at the end.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from hourllava.errors import ConfigError, HourLlavaError, InputError, VideoError
from hourllava.evaluation.benchmarks.asking import QUESTIONS_AT_ONCE, AskWay, ask_together
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

MAX_NEW_TOKENS = 128
"""For tasks that do not say how long an answer may be, such as TempCompass."""


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        video: path of the file; None asks without one.
        prompt: the user's turn.
        way: how long the answer may be, where it stops, how tokens are chosen.
    """

    video: str | None
    prompt: str
    way: AskWay


@dataclass(frozen=True)
class Reply:
    """The answer to a request.

    Attributes:
        text: "" if there is none.
        num_prompt_tokens, num_new_tokens: of the answer.
        error: why there is none; "" otherwise.
    """

    text: str
    num_prompt_tokens: int = 0
    num_new_tokens: int = 0
    error: str = ""


def request_of(prompt: str, visuals: Sequence[Any], options: Mapping[str, Any], repeat: int = 0) -> Request:
    """A request with lmms-eval's options of generation.

    Args:
        prompt: the text.
        visuals: path of the video; nothing for a question without one.
        options: `max_new_tokens`, `until`, `temperature`, `top_p`, `do_sample`; others change nothing here.
        repeat: number of the equal request, so that sampled answers differ.

    Raises:
        ConfigError: there is a picture, a sound, or more than one video: this model watches one video.
    """
    if len(visuals) > 1 or not all(isinstance(one, str) for one in visuals):
        kinds = ", ".join(sorted({type(one).__name__ for one in visuals}))
        raise ConfigError(
            f"a request has {len(visuals)} visuals ({kinds}); this model watches one video for each question. Use the "
            "task's variant with the path of a video, such as longvideobench_val_v"
        )
    until = options.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(until)
    temperature = float(options.get("temperature") or 0.0)
    is_sampled = bool(options.get("do_sample", temperature > 0)) and temperature > 0
    way = AskWay(
        max_new_tokens=int(options.get("max_new_tokens") or MAX_NEW_TOKENS),
        stop=tuple(text for text in stop if text),
        temperature=temperature if is_sampled else 0.0,
        top_p=float(options.get("top_p") or 1.0) if is_sampled else 1.0,
        seed=repeat if is_sampled else 0,
    )
    return Request(visuals[0] if visuals else None, prompt, way)


def answer_requests(
    engine: HourLlava,
    requests: Sequence[Request],
    *,
    cache: MemoryCache | None = None,
    progress: bool = True,
) -> list[Reply]:
    """The replies to all requests, in their order.

    Args:
        engine: the model.
        requests: in any order.
        cache: of memories; None watches every video.
        progress: whether to show a progress bar on stderr.

    Raises:
        HourLlavaError: no video can be watched.
    """
    found: dict[Request, Reply] = {}
    waiting = grouped(dict.fromkeys(requests), lambda request: request.video)
    errors: list[HourLlavaError] = []
    with tqdm(total=len(set(requests)), unit="question", desc="asking", file=sys.stderr, disable=not progress) as bar:
        for video, asked in waiting.items():
            try:
                memory = None if video is None else engine.watch(video, cache=cache, progress=False)
            except VideoError as error:
                errors.append(error)
                bar.write(f"failed: {error}; its {len(asked):,} questions get an empty answer", file=sys.stderr)
                found |= dict.fromkeys(asked, Reply("", error=str(error)))
                bar.update(len(asked))
                continue
            for request, reply in _replies(engine, memory, asked):
                found[request] = reply
                bar.update(1)
    if errors and len(errors) == len(waiting):
        raise errors[0]
    return [found[request] for request in requests]


def _replies(engine: HourLlava, memory: Any, asked: Sequence[Request]) -> Iterator[tuple[Request, Reply]]:
    for way, some in grouped(asked, lambda request: request.way).items():
        for k in range(0, len(some), QUESTIONS_AT_ONCE):
            part = some[k : k + QUESTIONS_AT_ONCE]
            for request, answer in zip(part, ask_together(engine, memory, [one.prompt for one in part], way)):
                if isinstance(answer, InputError):
                    print(f"failed: {answer}; the question gets an empty answer", file=sys.stderr)
                    yield request, Reply("", error=str(answer))
                else:
                    yield request, Reply(answer.text, answer.num_prompt_tokens, answer.num_new_tokens)


def grouped(items: Iterable[Item], key_of: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by key, in the order in which the keys come."""
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key_of(item)].append(item)
    return dict(groups)
