"""A conversation as messages tell it: the question, the turns before it, and the video it is about."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hourllava.model.prompt import SYSTEM_PROMPT
from hourllava.serving.errors import invalid, unsupported
from hourllava.serving.sources import Source


@dataclass(frozen=True)
class Turn:
    """A message.

    Attributes:
        role: of who speaks.
        text: all of its text.
        sources: videos that it names, each with its frames a second if it says so.
        where: in the request, for errors.
    """

    role: str
    text: str
    sources: Sequence[tuple[Source, float | None]] = ()
    where: str = ""


@dataclass
class Talk:
    """A conversation up to its question.

    Attributes:
        text: the question.
        history: (question, answer) pairs before it.
        source: the video.
        fps: that the message with the video asks for.
    """

    text: str = ""
    history: list[tuple[str, str]] = field(default_factory=list)
    source: Source | None = None
    fps: float | None = None

    def take(self, source: Source, fps: float | None) -> None:
        """Note a video.

        Raises:
            ApiError: the conversation is about another one.
        """
        known = self.source
        if known is not None and (known.file_id, known.url) != (source.file_id, source.url):
            raise invalid("a conversation is about one video; begin another one", source.param)
        self.source, self.fps = source, self.fps if fps is None else fps


def talk_of(turns: Iterable[Turn]) -> Talk:
    """The conversation of these messages; several in a row of one speaker are one.

    The models were trained with one system text only. So that one changes nothing, and any other stands, with an empty
    line below it, before the user's next message.

    Raises:
        ApiError: they are in no order, or hold what this server does not take.
    """
    talk = Talk()
    rules: list[str] = []
    asked: list[str] = []
    answered: list[str] = []
    where = "messages"
    for turn in turns:
        where = turn.where
        if turn.role == "user":
            if answered:
                talk.history.append(("\n".join(asked), "\n".join(answered)))
                asked, answered = [], []
            if turn.text.strip():
                asked.append("\n\n".join((*rules, turn.text)))
                rules = []
            elif not asked:
                asked.append("")
        elif turn.role == "assistant":
            if not asked:
                raise invalid("the first message must be the user's", where)
            answered.append(turn.text)
        elif turn.role not in ("system", "developer"):
            raise unsupported(f"{where}.role={turn.role}", "use system, user and assistant")
        elif turn.text.strip() not in ("", SYSTEM_PROMPT):
            rules.append(turn.text)
        for source, fps in turn.sources:
            if turn.role != "user":
                raise invalid("only the user's messages may have a video", source.param)
            talk.take(source, fps)
    if answered or not asked:
        raise invalid("the last message must be the user's", where)
    if rules and any(asked):
        raise invalid("a system message must have a message of the user behind it", where)
    talk.text = "\n".join(text for text in asked if text)
    return talk
