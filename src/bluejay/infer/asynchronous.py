"""Methods that compute, for programs with an event loop: each call runs in a thread, and the loop goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
ENDED: Any = object()


def in_thread(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The async variant of a function."""

    @wraps(method)
    async def call(*args: P.args, **keywords: P.kwargs) -> R:
        return await asyncio.to_thread(method, *args, **keywords)

    return call


def each_in_thread(method: Callable[P, Iterator[R]]) -> Callable[P, AsyncIterator[R]]:
    """The async variant of a function that yields; it stops where the caller does."""

    @wraps(method)
    async def call(*args: P.args, **keywords: P.kwargs) -> AsyncIterator[R]:
        items = await asyncio.to_thread(method, *args, **keywords)
        try:
            while (item := await asyncio.to_thread(next, items, ENDED)) is not ENDED:
                yield item
        finally:
            if (close := getattr(items, "close", None)) is not None:
                await asyncio.to_thread(close)

    return call
