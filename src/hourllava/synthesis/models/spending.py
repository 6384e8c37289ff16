"""What requests cost: a log with a line for each call, sums of tokens, and the budget that ends a run.

The log lasts as long as the folder, so a budget holds for all runs in it together.
"""

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from hourllava.synthesis.models.request import Reply
from hourllava.synthesis.stage import StopRun

MILLION = 1_000_000


class Price(BaseModel):
    """What a model costs, in any currency for a million tokens.

    Attributes:
        prompt, completion: of tokens that the model reads, and writes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: float = 0.0
    completion: float = 0.0


@dataclass(frozen=True)
class Attempt:
    """One call of a model.

    Attributes:
        item, kind: what it was for.
        model, server: who was asked.
        seconds: that it took.
        fault: of the call; None if a reply came.
        prompt_tokens, completion_tokens: as the model counts them.
    """

    item: str
    kind: str
    model: str
    server: str
    seconds: float
    fault: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def of_reply(cls, item: str, kind: str, model: str, reply: Reply, seconds: float) -> Self:
        """The call that brought a reply."""
        return cls(item, kind, model, reply.server, seconds, None, reply.prompt_tokens, reply.completion_tokens)


@dataclass
class Sums:
    """Of one kind of request to one model."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)


class Spending:
    """Counts what is spent in a folder.

    Args:
        log: a file of lines; what earlier runs spent is read from it.
        prices: by model; others cost nothing.
        max_tokens, max_cost: the budget; None: no limit.
    """

    def __init__(
        self,
        log: Path,
        prices: dict[str, Price] | None = None,
        max_tokens: int | None = None,
        max_cost: float | None = None,
    ) -> None:
        self._prices, self._max_tokens, self._max_cost = prices or {}, max_tokens, max_cost
        self.sums: dict[tuple[str, str], Sums] = {}
        self.cost = 0.0
        self.tokens = 0
        log.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        end = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                self._count_line(line)
        os.ftruncate(self._file, end)

    def add(self, attempt: Attempt) -> None:
        """Count a call, and log it."""
        fields: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "item": attempt.item,
            "kind": attempt.kind,
            "model": attempt.model,
            "server": attempt.server,
            "seconds": round(attempt.seconds, 3),
        }
        if attempt.fault is None:
            fields |= {"prompt_tokens": attempt.prompt_tokens, "completion_tokens": attempt.completion_tokens}
        else:
            fields["fault"] = attempt.fault
        self._write(fields)
        self._count(fields)

    def outcome(self, item: str, kind: str, fault: str) -> None:
        """Log that the last reply for an item could not be used."""
        self._write({"item": item, "kind": kind, "unusable": fault})
        self._sums(kind, "").faults[fault] += 1

    def check_budget(self) -> None:
        """Raise `StopRun` if the budget is spent."""
        if self._max_tokens is not None and self.tokens >= self._max_tokens:
            raise StopRun(f"the budget of {self._max_tokens:,} tokens is spent ({self.tokens:,}); {_MORE}")
        if self._max_cost is not None and self.cost >= self._max_cost:
            raise StopRun(f"the budget of {self._max_cost:g} is spent ({self.cost:.2f}); {_MORE}")

    def close(self) -> None:
        """Close the log."""
        os.close(self._file)

    def _write(self, fields: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(fields, ensure_ascii=False).encode(errors="surrogatepass") + b"\n")

    def _count_line(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
            if "unusable" in fields:
                self._sums(fields["kind"], "").faults[fields["unusable"]] += 1
            else:
                self._count(fields)
        except (ValueError, LookupError, TypeError):
            return  # damaged by a power cut

    def _count(self, fields: dict[str, Any]) -> None:
        sums = self._sums(fields["kind"], fields["model"])
        sums.calls += 1
        sums.seconds += fields["seconds"]
        if "fault" in fields:
            sums.faults[fields["fault"]] += 1
            return
        prompt, completion = fields["prompt_tokens"], fields["completion_tokens"]
        sums.prompt_tokens += prompt
        sums.completion_tokens += completion
        self.tokens += prompt + completion
        price = self._prices.get(fields["model"], Price())
        self.cost += (prompt * price.prompt + completion * price.completion) / MILLION

    def _sums(self, kind: str, model: str) -> Sums:
        return self.sums.setdefault((kind, model), Sums())


_MORE = "what is done is kept: run again with a larger budget to go on"
