"""A memory as its client gets it, with the address of its video."""

from hourllava.serving.context import Context
from hourllava.serving.protocol import WatchView
from hourllava.serving.records import MemoryRecord
from hourllava.serving.shapes import MemoryObject, memory_object


async def memory_shown(context: Context, record: MemoryRecord, view: WatchView | None = None) -> MemoryObject:
    """A memory as clients get it.

    Args:
        context: of the server.
        record: from the store.
        view: how far it is; by default the engine is asked.
    """
    view = view or await context.watching.view(record)
    url = None
    if await context.watching.path(record) is not None:
        url = f"/v1/hourllava/memories/{record.id}/content"
        if context.settings.keys:
            url += f"?token={context.signed.sign(url, record.owner)}"
    return memory_object(record, view, url)
