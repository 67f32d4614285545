"""Methods that compute, for programs with an event loop: each call runs in a thread, and the loop goes on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
ENDED: Any = object()
LEFT: ContextVar[threading.Event | None] = ContextVar("LEFT", default=None)
"""Set once nobody waits for the call that runs in this context."""


def in_thread(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The async variant of a function, which ends at its next `go_on` when the caller is cancelled."""

    @wraps(method)
    async def call(*args: P.args, **keywords: P.kwargs) -> R:
        left = threading.Event()
        token = LEFT.set(left)
        try:
            return await asyncio.to_thread(method, *args, **keywords)
        finally:
            left.set()
            LEFT.reset(token)

    return call


def go_on() -> None:
    """Raise CancelledError in a thread whose result nobody waits for any more."""
    if (left := LEFT.get()) is not None and left.is_set():
        raise asyncio.CancelledError


def each_in_thread(method: Callable[P, Iterator[R]]) -> Callable[P, AsyncIterator[R]]:
    """The async variant of a function that yields; it stops where the caller does, or is cancelled."""

    @wraps(method)
    async def call(*args: P.args, **keywords: P.kwargs) -> AsyncIterator[R]:
        items = await asyncio.to_thread(method, *args, **keywords)
        turn = threading.Lock()  # a thread goes on with its item when the task that waits for it is cancelled

        def take() -> R:
            with turn:
                return next(items, ENDED)

        def close() -> None:
            with turn:
                if (end := getattr(items, "close", None)) is not None:
                    end()

        try:
            while (item := await asyncio.to_thread(take)) is not ENDED:
                yield item
        finally:
            await asyncio.to_thread(close)

    return call
