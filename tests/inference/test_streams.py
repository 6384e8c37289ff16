"""Text of an answer as it comes: never taken back, never half a character, never a stop text."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourllava.errors import InputError
from hourllava.inference.streams import AnswerState, AnswerStream, TextPieces

TEXTS = st.text("abé“😀 ", max_size=12)


def decode(tokens):
    """Tokens are bytes: half a character shows as U+FFFD."""
    return bytes(tokens).decode(errors="replace")


def expected_text(text, stops):
    """The text before the stop text that is whole first, of several the longest."""
    for end in range(1, len(text) + 1):
        if ends := [len(stop) for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(ends)]
    return text


@given(TEXTS, st.lists(st.text("abé😀 ", min_size=1, max_size=3), max_size=3))
def test_pieces_make_the_text_before_the_first_stop(text, stops):
    pieces, given_so_far = TextPieces(stops), ""
    content = text.encode()
    for end in range(1, len(content) + 1):
        part = decode(content[:end])
        given_so_far += pieces.next(part, is_whole=False)
        assert "\ufffd" not in given_so_far
        assert expected_text(text, stops).startswith(given_so_far)
        if pieces.cut(part)[1]:  # no further token comes
            content = content[:end]
            break
    given_so_far += pieces.next(decode(content), is_whole=True)
    assert given_so_far == expected_text(text, stops)


def written(text, stop=(), reason="stop"):
    """A state into which a thread writes a text, byte by byte."""
    state = AnswerState("What?", decode, stop)

    def write():
        for byte in text.encode():
            if state.put(byte):
                break
        state.finish(reason, [])

    return state, threading.Thread(target=write)


def test_every_reader_gets_all_of_it():
    state, writer = written("A café: “yes”, she said.")
    stream, got = AnswerStream(state, lambda: None), []
    readers = [threading.Thread(target=lambda: got.append("".join(stream))) for _ in range(3)]

    async def read():
        return "".join([piece async for piece in stream]), (await stream.result()).text

    async def read_twice():
        return await asyncio.gather(read(), read())

    for thread in (*readers, writer):
        thread.start()
    in_tasks = asyncio.run(read_twice())
    for thread in (*readers, writer):
        thread.join()
    assert got == ["A café: “yes”, she said."] * 3
    assert in_tasks == [("A café: “yes”, she said.",) * 2] * 2
    assert stream.answer.num_new_tokens == len("A café: “yes”, she said.".encode())
    assert 0 < stream.answer.first_token_seconds <= stream.answer.total_seconds


def test_an_answer_ends_at_a_stop_text():
    state, writer = written("one. two. three", stop=("two", "three"))
    writer.start()
    assert "".join(AnswerStream(state, lambda: None)) == "one. "
    assert state.answer().text == "one. "


def test_an_error_reaches_every_reader():
    state = AnswerState("What?", decode)
    state.put(65)
    stream = AnswerStream(state, lambda: None)
    state.fail(InputError("no"))
    for read in (lambda: list(stream), lambda: stream.answer, lambda: asyncio.run(stream.result())):
        with pytest.raises(InputError, match="no"):
            read()


def test_a_stream_is_cancelled_when_its_block_ends_or_nobody_holds_it():
    told = []
    for leave in ("block", "dropped", "cancel", "ended"):
        state = AnswerState("What?", decode)
        stream = AnswerStream(state, lambda: told.append(leave))  # noqa: B023 - called in this round
        if leave == "ended":
            state.finish("stop", [])
        if leave == "cancel":
            stream.cancel()
        with stream if leave in ("block", "ended") else AnswerStream(AnswerState("", decode), lambda: None):
            pass
        del stream
        assert state.is_cancelled == (leave != "ended")
    assert set(told) == {"block", "dropped", "cancel"}
