"""hourllava as captioner: it watches the clip and answers one question for each aspect.

Nano does so for a demonstration only: it knows MarathonWorld's drawings and nothing of real video, and writes no JSON,
so its answers are put into the schema here. Its captions are as good as they are measured to be (docs/synthesis.md).
"""

import asyncio
import json

from hourllava.inference.engine import HourLlava
from hourllava.synthesis.models.request import Reply, Request
from hourllava.synthesis.rows import ItemFault
from hourllava.synthesis.shapes import ASPECTS, ClipCaption

MAX_TOKENS = 160  # of an aspect


class WatchingModel:
    """A model of ours that watches clips.

    Args:
        name: as `HourLlava.from_pretrained` takes it.
        questions: the question for each aspect.
    """

    def __init__(self, name: str, questions: dict[str, str]) -> None:
        self._name, self._questions = name, [questions[aspect] for aspect in ASPECTS]
        self._engine = HourLlava.from_pretrained(name)

    @property
    def name(self) -> str:
        """What the model is."""
        return f"hourllava:{self._name}"

    @property
    def concurrency(self) -> int:
        """A few: one decodes while another is asked."""
        return 4

    async def call(self, request: Request) -> Reply:
        """Watch the request's stretch, and ask for each aspect."""
        if request.shape is not ClipCaption or request.stretch is None:
            raise ItemFault("wrong kind", f"{self.name} describes clips only; take another model for {request.kind}")
        return await asyncio.to_thread(self._describe, request)

    def _describe(self, request: Request) -> Reply:
        assert request.stretch is not None
        part = request.stretch
        start, end = (seconds + part.player_offset_seconds for seconds in (part.start_seconds, part.end_seconds))
        memory = self._engine.watch(part.video, start_seconds=start, end_seconds=end, progress=False)
        answers = self._engine.ask_all(memory, self._questions, max_new_tokens=MAX_TOKENS)
        texts = {aspect: answer.text.strip() or "nothing" for aspect, answer in zip(ASPECTS, answers)}
        return Reply(
            json.dumps(texts),
            prompt_tokens=sum(answer.num_prompt_tokens for answer in answers),
            completion_tokens=sum(answer.num_new_tokens for answer in answers),
            server="here",
        )

    async def close(self) -> None:
        """End the engine's thread."""
        await asyncio.to_thread(self._engine.close)
