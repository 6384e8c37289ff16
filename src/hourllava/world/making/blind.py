"""Check that multiple choice cannot be solved without watching: four attackers read only questions and options.

- `frequent`: chooses the option that was the right answer of this template most often.
- `words`: naive Bayes over the words and numbers of an option, per template.
- `pairs`: naive Bayes over (word of the question, word of the option) pairs, per template.
- `likeness`: a conditional logit per task. Its inputs are the words that an option shares with the question and with
  the other options, its length, its rank among the numbers, and its position.

They learn from one set of videos and answer questions about another; 25 % is chance. Run: `hourllava world blind`.
Synthesis lets the same attackers loose on questions of any origin.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hourllava.errors import ConfigError
from hourllava.world.generate import generate_script
from hourllava.world.questions import BUILDERS, Question, generate_questions
from hourllava.world.questions.draft import NUM_OPTIONS
from hourllava.world.rng import Draws
from hourllava.world.vocabulary import SPLITS, Split

CHANCE = 1 / NUM_OPTIONS


class Attacked(Protocol):
    """What attackers read of a multiple-choice question with four options; `template` is what alike questions share."""

    @property
    def template(self) -> str: ...  # noqa: D102
    @property
    def task(self) -> str: ...  # noqa: D102
    @property
    def question(self) -> str: ...  # noqa: D102
    @property
    def options(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def answer(self) -> str: ...  # noqa: D102
    @property
    def answer_index(self) -> int | None: ...  # noqa: D102


Scorer = Callable[[Attacked], NDArray[np.float64]]  # -> [4], a larger value for a likelier option


@dataclass(frozen=True)
class BlindResult:
    """The accuracy of each attacker on one task."""

    task: str
    num_questions: int
    accuracy: dict[str, float]

    @property
    def largest_gap(self) -> float:
        """The largest distance of an attacker's accuracy from chance."""
        return max(abs(value - CHANCE) for value in self.accuracy.values())


def choice_questions(split: Split, seeds: Iterable[int], per_task: int) -> list[Question]:
    """Multiple-choice questions about new videos of 3 to 60 minutes."""
    questions = []
    for seed in seeds:
        duration_seconds = Draws("blind", split, seed).between(180, 3600)
        script = generate_script(seed, duration_seconds, split=split)
        questions += generate_questions(script, per_task=per_task, formats=("choice",))
    return questions


def blind_table(num_videos: int, per_task: int, test_split: str = "test") -> str:
    """Learn from `num_videos` train videos, answer questions about as many others; a Markdown table of the result.

    Raises:
        ConfigError: fewer than 2 videos, no questions, or an unknown split.
    """
    if num_videos < 2 or per_task < 1:
        raise ConfigError(
            f"{num_videos} videos and {per_task} questions per task were asked for; use at least 2 and at least 1"
        )
    if test_split not in SPLITS:
        raise ConfigError(f"--test-split is {test_split!r}; use one of: {', '.join(SPLITS)}")
    split: Split = "test" if test_split == "test" else "train"
    train = choice_questions("train", range(num_videos), per_task)
    test = choice_questions(split, range(num_videos, 2 * num_videos), per_task)
    return accuracy_table(measure_blind(train, test))


def measure_blind(train: Sequence[Question], test: Sequence[Question]) -> list[BlindResult]:
    """Let all attackers learn from `train` and answer `test`; one result per task.

    Raises:
        ConfigError: no multiple-choice questions on either side.
    """
    if not train or not test:
        raise ConfigError("there are no multiple-choice questions to measure; use more videos")
    scorers = attackers(train)
    jitter = Draws("ties")
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for question in test:
        for name, scorer in scorers.items():
            scores = scorer(question) + np.array([jitter.below(1000) for _ in range(NUM_OPTIONS)]) * 1e-9
            hits[question.task][name].append(int(scores.argmax()) == question.answer_index)
    return [
        BlindResult(task, len(hits[task]["frequent"]), {name: float(np.mean(got)) for name, got in hits[task].items()})
        for task in BUILDERS
        if task in hits
    ]


def attackers(train: Sequence[Attacked]) -> dict[str, Scorer]:
    """All attackers by name, after they have learnt from `train`."""
    return {
        "frequent": _frequent(train),
        "words": _naive_bayes(train, lambda question, option: _words(option)),
        "pairs": _naive_bayes(
            train, lambda question, option: [f"{a}|{b}" for a in _words(question.question) for b in _words(option)]
        ),
        "likeness": _likeness(train),
    }


def accuracy_table(results: Sequence[BlindResult]) -> str:
    """The results as a Markdown table in percent; the last row is the mean over tasks."""
    names = list(results[0].accuracy)
    lines = [f"| task | questions | {' | '.join(names)} | largest gap |", "|---|---|" + "---|" * (len(names) + 1)]
    for result in results:
        cells = " | ".join(f"{100 * result.accuracy[name]:.1f}" for name in names)
        lines.append(f"| {result.task} | {result.num_questions} | {cells} | {100 * result.largest_gap:.1f} |")
    means = " | ".join(f"{100 * np.mean([r.accuracy[name] for r in results]):.1f}" for name in names)
    total = sum(result.num_questions for result in results)
    lines.append(f"| all | {total} | {means} | {100 * max(r.largest_gap for r in results):.1f} |")
    return "\n".join(lines)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9:]+", text.lower())


def _frequent(train: Sequence[Attacked]) -> Scorer:
    counts = Counter((question.template, question.answer) for question in train)
    return lambda question: np.array([float(counts[question.template, option]) for option in question.options])


def _naive_bayes(train: Sequence[Attacked], features: Callable[[Attacked, str], list[str]]) -> Scorer:
    right: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for question in train:
        for k, option in enumerate(question.options):
            (right if k == question.answer_index else wrong).update(
                (question.template, feature) for feature in features(question, option)
            )

    def score(question: Attacked) -> NDArray[np.float64]:
        return np.array(
            [
                sum(
                    np.log((right[key] + 1) / (wrong[key] / (NUM_OPTIONS - 1) + 1))
                    for feature in features(question, option)
                    if (key := (question.template, feature)) in right or key in wrong
                )
                for option in question.options
            ],
            dtype=np.float64,
        )

    return score


def _traits(question: Attacked) -> NDArray[np.float64]:
    """The inputs of `likeness`, [4, 9]: shared words, length, rank among the numbers, one-hot position."""
    words = [set(_words(option)) for option in question.options]
    asked = set(_words(question.question))
    numbers = [float("".join(re.findall(r"\d", option)) or 0) for option in question.options]
    ranks = np.argsort(np.argsort(numbers)) if len(set(numbers)) > 1 else np.full(NUM_OPTIONS, 1.5)
    rows = []
    for k, own in enumerate(words):
        shared = [len(own & other) / max(1, len(own | other)) for j, other in enumerate(words) if j != k]
        rank = (float(ranks[k]) - 1.5) / 1.5
        rows.append(
            [
                len(own & asked) / max(1, len(own)),
                sum(shared),
                max(shared),
                len(question.options[k]) / 20,
                rank,
                rank**2,
            ]
            + [float(k == position) for position in range(3)]
        )
    return np.array(rows)


def _likeness(train: Sequence[Attacked]) -> Scorer:
    weights = {}
    for task in {question.task for question in train}:
        mine = [question for question in train if question.task == task]
        traits = np.stack([_traits(question) for question in mine])  # [N, 4, 9]
        right = np.array([question.answer_index for question in mine])
        mean, spread = traits.mean((0, 1)), traits.std((0, 1)) + 1e-6
        scaled = (traits - mean) / spread
        weight = np.zeros(traits.shape[-1])
        for _ in range(300):
            logits = scaled @ weight
            chances = np.exp(logits - logits.max(1, keepdims=True))
            chances /= chances.sum(1, keepdims=True)
            chances[np.arange(len(right)), right] -= 1
            weight -= 0.3 * np.einsum("no,nof->f", chances, scaled) / len(right)
        weights[task] = (weight / spread, mean)

    def score(question: Attacked) -> NDArray[np.float64]:
        if question.task not in weights:
            return np.zeros(NUM_OPTIONS)
        weight, mean = weights[question.task]
        return np.asarray((_traits(question) - mean) @ weight, dtype=np.float64)

    return score
