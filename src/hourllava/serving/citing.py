"""Moments as addresses: a player opens them at that second, and clients show them like any citation."""

from collections.abc import Sequence

from hourllava.clock import format_clock
from hourllava.inference.questions.evidence import Span
from hourllava.serving.records import MemoryRecord


def cited(memory: MemoryRecord | None, spans: Sequence[Span], base: str) -> list[tuple[str, str]]:
    """Address and title of each moment, such as `.../content#t=420,440` and `0:07:00-0:07:20`.

    Args:
        memory: that the moments are of; None: there are none.
        spans: the moments.
        base: address of the server.
    """
    if memory is None:
        return []
    place = f"files/{memory.file_id}" if memory.file_id is not None else f"hourllava/memories/{memory.id}"
    return [
        (
            f"{base}/v1/{place}/content#t={_short(span.start_seconds)},{_short(span.end_seconds)}",
            f"{format_clock(span.start_seconds)}-{format_clock(span.end_seconds)}",
        )
        for span in spans
    ]


def _short(seconds: float) -> str:
    return f"{seconds:.2f}".rstrip("0").rstrip(".")
