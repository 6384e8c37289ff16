"""The shapes of what models answer, for each kind of request."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ASPECTS = ("temporality", "spatiality", "object", "action", "scene", "summary")
"""VideoMarathon's six aspects of a clip."""

NUM_WRONG = 3
MAX_TEXT = 8000  # letters; longer ones are a model that repeats itself
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)]
Short = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=600)]


class Shape(BaseModel):
    """An answer; keys that it does not know are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class ClipCaption(Shape):
    """A clip in six aspects."""

    temporality: Text
    spatiality: Text
    object: Text
    action: Text
    scene: Text
    summary: Text


class EventTime(Shape):
    """A titled stretch; the times as the model writes them."""

    title: Short
    start: str | float
    end: str | float


class EventList(Shape):
    """The events of a video, or of a part of it."""

    events: list[EventTime]


class EventCaption(Shape):
    """An event, told."""

    caption: Text


class Summary(Shape):
    """The whole video, told."""

    summary: Text


class OpenQuestion(Shape):
    """A question with its answer."""

    task: str
    question: Short
    answer: Text
    evidence: list[str] = []


class OpenQuestions(Shape):
    """Open-ended questions for one topic."""

    questions: list[OpenQuestion]


class ChoiceQuestion(Shape):
    """A question with its right option and three wrong ones, all by text."""

    task: str
    question: Short
    answer: Short
    wrong_options: Annotated[list[Short], Field(min_length=NUM_WRONG, max_length=NUM_WRONG)]
    evidence: list[str] = []


class ChoiceQuestions(Shape):
    """Multiple-choice questions for one topic."""

    questions: list[ChoiceQuestion]


class Letter(Shape):
    """The chosen option."""

    letter: str


class Verdict(Shape):
    """What a verifier answers itself, and whether the proposed answer says the same."""

    answer: str
    verdict: Literal["same", "different", "not told"]


def json_schema(shape: type[BaseModel]) -> dict[str, Any]:
    """The schema that a server gets: all keys are required, no others are allowed."""
    schema = shape.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        part["additionalProperties"] = False
        part["required"] = list(part["properties"])
        for described in (part, *part["properties"].values()):
            described.pop("title", None)
            described.pop("default", None)
            described.pop("description", None)
    return schema
