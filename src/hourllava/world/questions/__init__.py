"""Questions with exact answers for all 22 tasks of VideoMarathon, from a script.

    from hourllava.world.questions import generate_questions
    questions = generate_questions(script, per_task=2)

Open-ended answers are short and have one spelling. Multiple-choice questions have four options in random order.
"""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hourllava.data.records.taxonomy import TASKS
from hourllava.world.questions import happenings, objects, temporality
from hourllava.world.questions.draft import NUM_OPTIONS, PHRASINGS, Builder, Draft, Format
from hourllava.world.questions.view import View, span
from hourllava.world.rng import Draws
from hourllava.world.script import Needle, Script
from hourllava.world.wording import sentence

FORMATS: tuple[Format, ...] = ("open", "choice")
# These may repeat a fact with other options. Otherwise rare lengths would be asked once but offered often, and a model
# could guess the common ones.
_LENGTHS = {"event_duration", "gap_letters", "gap_events"}
_TRIES = 8  # attempts per wanted question to find one that was not asked yet

BUILDERS: dict[str, tuple[Builder, ...]] = {
    "Temporal Perception": (temporality.part_of_video,),
    "Duration Perception": (temporality.event_duration,),
    "Temporal Reasoning": (temporality.backwards, temporality.next_letter, temporality.letter_between),
    "Temporal Gap Estimation": (temporality.gap,),
    "Temporal Order": (temporality.order,),
    "Spatial Perception": (objects.place_at_start,),
    "Spatial Reasoning": (objects.relative,),
    "Object Recognition": (objects.object_at_place, objects.object_did),
    "Object Attribute": (objects.letter_colour, objects.attribute_at_place),
    "Object Interaction": (objects.partner, objects.interaction),
    "Object Reasoning": (objects.actor_by_letter, objects.shared_object),
    "Object Existence": (objects.existence,),
    "Object Permanence": (objects.return_place, objects.hidden_object, objects.next_event_of),
    "Action Recognition": (happenings.what_did, happenings.slide_direction),
    "Action Localization": (happenings.when_did,),
    "Action Sequence": (happenings.action_order,),
    "Action Reasoning": (happenings.why_hop, happenings.next_actor),
    "Scene Recognition": (happenings.scene_of_letter, happenings.scene_of_action),
    "Scene Transition": (happenings.scene_change,),
    "Event Sequence": (happenings.event_order,),
    "Key Event Extraction": (happenings.event_of_letter, happenings.which_happened, happenings.longest_event),
    "Overall Summarization": (happenings.summary,),
}


class Question(BaseModel):
    """A question about one video.

    `form` is the taxonomy's tag: short or long stretches of video. `format` is open-ended or multiple choice. For
    open-ended questions `options` is empty and `answer_index` None; otherwise `options[answer_index] == answer`.
    `evidence` lists the true evidence spans, (start_seconds, end_seconds).
    """

    model_config = ConfigDict(frozen=True)
    task: str
    topic: str
    form: Literal["short", "long"]
    format: Format
    template: str
    question: str
    options: tuple[str, ...]
    answer: str
    answer_index: int | None
    evidence: tuple[tuple[float, float], ...]


def generate_questions(
    script: Script,
    *,
    per_task: int = 1,
    tasks: tuple[str, ...] = tuple(BUILDERS),
    formats: tuple[Format, ...] = FORMATS,
) -> list[Question]:
    """Ask up to `per_task` different questions per task and format; tasks that the video does not allow are left out.

    The same script and arguments give the same questions. The phrasings belong to the script's split.
    """
    view = View(script)
    questions = []
    for task in tasks:
        for answer_format in formats:
            draws = Draws("questions", script.split, script.seed, script.duration_seconds, task, answer_format)
            asked: set[str] = set()
            for _ in range(_TRIES * per_task):
                if len(asked) == per_task:
                    break
                draft = _any_draft(view, draws, task, answer_format)
                if draft is None:
                    continue
                # A fact is asked only once, in whatever words. "Which of these" questions differ by their options.
                by_options = answer_format == "choice" and (not draft.slots or draft.template in _LENGTHS)
                these = sorted((draft.answer, *draft.wrong)) if by_options else []
                identity = json.dumps([draft.template, draft.slots, these])
                if identity not in asked:
                    asked.add(identity)
                    questions.append(_worded(draft, view, draws, task, answer_format))
    return questions


def needle_question(script: Script, needle: Needle, answer_format: Format = "choice") -> Question:
    """Ask for the colour of one card."""
    view = View(script)
    draws = Draws("needle", script.split, script.seed, needle.glyph, answer_format)
    return _worded(objects.colour_of(view, draws, needle), view, draws, "Object Attribute", answer_format)


def _any_draft(view: View, draws: Draws, task: str, answer_format: Format) -> Draft | None:
    for builder in draws.shuffled(BUILDERS[task]):
        draft = builder(view, draws, answer_format)
        if draft is not None and (answer_format == "open" or len(set(draft.wrong)) == NUM_OPTIONS - 1):
            return draft
    return None


def _worded(draft: Draft, view: View, draws: Draws, task: str, answer_format: Format) -> Question:
    split = view.script.split
    slots = dict(draft.slots)
    evidence = list(draft.evidence)
    for slot in ("event", "event2"):
        # Instead of its title, the letter of a card can name an event; the question then needs one more step.
        event = next((event for event in view.events if event.title == slots.get(slot)), None)
        cards = view.cards_of(event) if event else []
        if cards and _may_name_by_letter(draft) and draws.below(4) == 0:
            card = draws.pick(cards)
            slots[slot] = draws.pick(PHRASINGS["event_by_letter"][split]).format(glyph=card.glyph)
            evidence.append(span(card))
    question = sentence(draws.pick(PHRASINGS[draft.template][split]).format(**slots))
    options = list(draft.wrong) if answer_format == "choice" else []
    index = draws.below(NUM_OPTIONS) if answer_format == "choice" else None
    if index is not None:
        options = draws.shuffled(options)
        options.insert(index, draft.answer)
    return Question(
        task=task,
        topic=TASKS[task].topic,
        form=TASKS[task].form,
        format=answer_format,
        template=draft.template,
        question=question,
        options=tuple(options),
        answer=draft.answer,
        answer_index=index,
        evidence=tuple(evidence),
    )


def _may_name_by_letter(draft: Draft) -> bool:
    """Whether letters may name events: not if the answer is a letter, nor if titles are put in order."""
    return draft.template not in {"next_letter", "event_order", "gap_events"}
