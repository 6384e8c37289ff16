"""Tests that are coroutines, without a plugin."""

import asyncio
import functools

SECONDS = 15


def in_loop(test):
    """Run a coroutine function as a test. An `engine` among its arguments is closed at the end."""

    @functools.wraps(test)
    def run(**arguments):
        async def whole():
            try:
                async with asyncio.timeout(SECONDS):
                    await test(**arguments)
            finally:
                if "engine" in arguments:
                    await arguments["engine"].close()

        asyncio.run(whole())

    return run


async def until(condition, seconds=10):
    """Wait until a condition holds; it may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.005)


async def collected(events):
    return [event async for event in events]
