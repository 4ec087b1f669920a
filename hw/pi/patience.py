"""Calls into drivers that may never return: done on a thread of their own, which is given up after a while.

A driver that hangs holds its caller in the kernel, where not even a kill reaches it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

__all__ = ["aside", "within"]

_log = logging.getLogger("hw")

Result = TypeVar("Result")


def aside(name: str, call: Callable[[], Result]) -> Future[Result]:
    """``call`` on a thread of its own with that name; nobody has to wait for what it returns, or raises."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def within(seconds: float, name: str, future: Future[Result]) -> Result:
    """The result of ``aside``. Raises TimeoutError when it takes longer; the call then goes on, as its future shows."""
    try:
        return future.result(seconds)
    except FutureTimeoutError:
        if future.done():  # the call itself raised one
            raise
        _log.error("%s: the driver has not answered for %g s and is left alone", name, seconds)
        raise TimeoutError(f"the driver has not answered for {seconds:g} s") from None
