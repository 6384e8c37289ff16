"""Asks a model until its answer has the wanted form, or gives up: what is tried again depends on the kind of fault.

| fault | what happens |
|---|---|
| 429, 5xx, timeout, lost connection, a page for a reply | the same again, after a pause that doubles, or as told |
| no JSON, other keys or counts, a check of the caller | again with the fault named and another seed |
| cut at the token limit, or blanks up to it | again with the fault named and twice the tokens |
| refusal, content filter | given up at once |
| key refused, model unknown, quota spent | the run ends |
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hourllava.synthesis.models.request import CallFault, Model, Reply, Request
from hourllava.synthesis.models.spending import Attempt, Spending
from hourllava.synthesis.rows import ItemFault
from hourllava.synthesis.stage import StopRun

Answer = TypeVar("Answer", bound=BaseModel)
Check = Callable[[Any], object]
"""Raises ValueError, with words for the model, if an answer of the right form cannot be used."""

_SHOWN = 300  # letters of a bad answer in a message


class RetryPolicy(BaseModel):
    """How often what is tried again.

    Attributes:
        transport: times for faults of the server.
        content: times for answers that cannot be used.
        first_pause_seconds: before the second call; each further pause is twice as long.
        longest_pause_seconds: of the server's wishes, too.
        stop_after: items in a row given up for faults of the server, after which the run ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    transport: int = 5
    content: int = 2
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0
    stop_after: int = 20


class _Bad(Exception):
    """An answer that cannot be used."""

    def __init__(self, kind: str, reason: str, *, is_cut: bool = False) -> None:
        super().__init__(kind)
        self.kind, self.reason, self.is_cut = kind, reason, is_cut


class Asker:
    """Asks one model, counts what it costs, and limits the calls at a time.

    Args:
        model: whom to ask.
        spending: counts tokens and keeps the log.
        policy: what is tried again.
    """

    def __init__(self, model: Model, spending: Spending, policy: RetryPolicy) -> None:
        self.model = model
        self._spending, self._policy = spending, policy
        self._places = asyncio.Semaphore(model.concurrency)
        self._given_up_in_a_row = 0

    async def ask(self, request: Request, item: str, shape: type[Answer], check: Check | None = None) -> Answer:
        """The answer to a request.

        Args:
            request: what to ask.
            item: id of the item, for the log.
            shape: of the answer, as in the request.
            check: of what the shape does not say.

        Raises:
            ItemFault: no usable answer.
            StopRun: the budget is spent, or the server is down.
        """
        sent = request
        for attempt in range(self._policy.content + 1):
            reply = await self._reply(sent, item)
            try:
                answer = _parsed(reply, shape)
                if check is not None:
                    _checked(answer, check)
            except ItemFault as fault:  # a refusal: it is not asked again
                self._spending.outcome(item, request.kind, fault.kind)
                raise
            except _Bad as fault:
                self._spending.outcome(item, request.kind, fault.kind)
                if attempt == self._policy.content:
                    raise ItemFault(fault.kind, fault.reason) from None
                note = f"Your last answer could not be used: {fault.reason}. Answer again, with JSON of that form only."
                tokens = request.max_tokens * 2 ** (attempt + 1) if fault.is_cut else sent.max_tokens
                sent = replace(request.with_note(note), seed=request.seed + attempt + 1, max_tokens=tokens)
            else:
                return answer
        raise AssertionError("unreachable")

    async def _reply(self, request: Request, item: str) -> Reply:
        """One reply, whatever it says."""
        for attempt in range(self._policy.transport + 1):
            async with self._places:
                self._spending.check_budget()
                begun = time.monotonic()
                try:
                    reply = await self.model.call(request)
                except CallFault as fault:
                    seconds = time.monotonic() - begun
                    self._spending.add(Attempt(item, request.kind, self.model.name, fault.server, seconds, fault.kind))
                    last = fault
                else:
                    seconds = time.monotonic() - begun
                    self._given_up_in_a_row = 0
                    self._spending.add(Attempt.of_reply(item, request.kind, self.model.name, reply, seconds))
                    return reply
            if attempt < self._policy.transport:
                await asyncio.sleep(self._pause(last, attempt))
        self._given_up_in_a_row += 1
        if self._given_up_in_a_row >= self._policy.stop_after:
            raise StopRun(
                f"{self.model.name} has not answered {self._given_up_in_a_row} requests in a row ({last}); "
                "see to the server and run the same command again, what is done is kept"
            )
        raise ItemFault(last.kind, last.reason, is_transport=True)

    def _pause(self, fault: CallFault, attempt: int) -> float:
        pause = self._policy.first_pause_seconds * 2**attempt * random.uniform(0.5, 1.0)
        return min(self._policy.longest_pause_seconds, max(pause, fault.retry_after_seconds or 0.0))


def _checked(answer: BaseModel, check: Check) -> None:
    try:
        check(answer)
    except ValueError as error:
        raise _Bad("answer not usable", str(error)) from None


def _parsed(reply: Reply, shape: type[Answer]) -> Answer:
    if reply.refusal is not None:
        raise ItemFault("refusal", reply.refusal[:_SHOWN])
    if reply.finish == "filter":
        raise ItemFault("content filter", "the server held the answer back")
    if reply.finish == "length":
        what = "it is only blanks" if not reply.text.strip() else "it is not finished"
        raise _Bad("cut at the token limit", f"it was cut at the token limit ({what}); write less", is_cut=True)
    try:
        found = json.loads(_json_of(reply.text), strict=False)
    except (ValueError, RecursionError):
        raise _Bad("not JSON", f"it is no JSON ({reply.text[:_SHOWN]!r})") from None
    try:
        return shape.model_validate(_with_names_of(found, shape))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise _Bad("other form", f"{place}: {first['msg']}") from None


def _json_of(text: str) -> str:
    """The JSON object in a text, which may have a fence or prose around it."""
    begin, end = text.find("{"), text.rfind("}")
    return text[begin : end + 1] if 0 <= begin < end else text


def _with_names_of(found: Any, shape: type[BaseModel]) -> Any:
    """An object with its keys spelled as the shape's fields: models write `Wrong Options` for `wrong_options`."""
    if not isinstance(found, dict):
        return found
    known = {_plain(name): name for name in shape.model_fields}
    named = {known.get(_plain(key), key): value for key, value in found.items()}
    for name, field in shape.model_fields.items():
        (inner,) = getattr(field.annotation, "__args__", (None,))[:1] or (None,)
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(named.get(name), list):
            named[name] = [_with_names_of(value, inner) for value in named[name]]
    return named


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()
