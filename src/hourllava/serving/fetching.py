"""Videos from addresses; see `download` for what is checked."""

from hourllava.serving.errors import invalid


class Fetching:
    """Fetches videos."""

    async def file_of(self, context, owner, url, param):  # type: ignore[no-untyped-def]
        """Not yet."""
        raise invalid("this server fetches no videos (--allow-url); upload it and give its file_id", param)
