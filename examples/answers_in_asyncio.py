"""Two people ask about a video at the same time, in one asyncio program; the pieces of both answers come in between.

Run it: python examples/answers_in_asyncio.py lecture.mp4
"""

import asyncio
import sys

from hourllava import HourLlava, Memory


async def ask(model: HourLlava, memory: Memory, person: str, question: str) -> None:
    """Print the pieces of an answer as they come, then when it was shown."""
    with model.stream(memory, question, caller=person, max_new_tokens=32) as stream:
        async for piece in stream:
            print(f"{person} reads: {piece!r}")
        answer = await stream.result()
    print(f"{person} has {answer.num_new_tokens} tokens and {len(answer.evidence)} moments.")


async def main() -> None:
    """Watch in a thread, because `watch` waits; ask in tasks."""
    model = HourLlava.from_pretrained("nano")
    memory = await asyncio.to_thread(model.watch, sys.argv[1])
    await asyncio.gather(
        ask(model, memory, "Ada", "What is shown first?"),
        ask(model, memory, "Bo", "What is shown last?"),
    )


asyncio.run(main())
