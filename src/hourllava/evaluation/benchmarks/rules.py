"""Rules: what the text of an answer counts as. Rules have the names of protocols, and can be exchanged afterwards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from hourllava.evaluation.benchmarks.letters import (
    HARNESS_WORDS,
    VLMEVALKIT_WORDS,
    first_letter,
    highest_mark,
    without_reasoning,
)
from hourllava.evaluation.benchmarks.protocols import HARNESS, LIKELIHOOD, OLD_HARNESS
from hourllava.evaluation.benchmarks.questions import Question

VLMEVALKIT = "vlmevalkit"
Unparsed = Literal["wrong", "left out", "random"]
"""What becomes of an answer that a rule cannot read."""


class Verdict(NamedTuple):
    """What a rule says about an answer.

    Attributes:
        answer: what the answer was read as, such as a letter; "" if it could not be read.
        right: whether it is right; None if only a judge can say so.
    """

    answer: str
    right: bool | None


@dataclass(frozen=True)
class Rule:
    """How answers are read.

    Attributes:
        read: gives the verdict of one answer.
        unparsed: what becomes of answers that cannot be read.
        judge: makes the request to a judge for an answer that only a judge can score; None without one.
        note: what a reader must know.
    """

    read: Callable[[Question, str], Verdict]
    unparsed: Unparsed = "wrong"
    judge: "Judge | None" = None
    note: str = ""


@dataclass(frozen=True)
class Judge:
    """How a judge model is asked.

    Attributes:
        request: the judge's prompt for a question and an answer.
        is_right: reads the judge's reply; None if it says neither.
        is_needed: whether the rule gives no verdict at all without a judge. If not, an answer that the rule cannot read
            is wrong without a judge.
    """

    request: Callable[[Question, str], str]
    is_right: Callable[[Question, str], bool | None]
    is_needed: Callable[[Question], bool]


def letter_rule(read: Callable[[Question, str], str], unparsed: Unparsed = "wrong", note: str = "") -> Rule:
    """A rule that reads a letter and compares it with the right one."""

    def verdict(question: Question, output: str) -> Verdict:
        letter = read(question, output)
        return Verdict(letter, letter != "" and letter == question.gold_letter)

    return Rule(verdict, unparsed, note=note)


def of_harness(rule: Rule) -> Rule:
    """A rule as lmms-eval 0.7.2 applies it: to the answer without its reasoning."""
    judge = rule.judge
    if judge is not None:
        request = judge.request
        judge = replace(judge, request=lambda question, output: request(question, without_reasoning(output)))
    return replace(rule, read=lambda question, output: rule.read(question, without_reasoning(output)), judge=judge)


def harness_rules(letters: str | None) -> dict[str, Rule]:
    """The rules that most benchmarks have in lmms-eval and VLMEvalKit.

    Args:
        letters: that count, such as "ABCD"; None: those of the question's options.
    """

    def of(question: Question) -> str:
        return letters or question.letters or "ABCD"

    return {
        HARNESS: of_harness(letter_rule(lambda question, output: highest_mark(output, of(question)))),
        OLD_HARNESS: letter_rule(lambda question, output: first_letter(output, of(question), HARNESS_WORDS)),
        VLMEVALKIT: letter_rule(lambda question, output: first_letter(output, of(question), VLMEVALKIT_WORDS)),
    }


LIKELIHOOD_RULE = letter_rule(lambda question, output: output.strip())


def with_likelihood(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """Rules by name, with the one of the protocol `likelihood`, whose outputs are letters."""
    return {**rules, LIKELIHOOD: LIKELIHOOD_RULE}
