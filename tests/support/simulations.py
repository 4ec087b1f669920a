"""Long simulations on virtual time, side by side on the cores that there are."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

__all__ = ["Simulations"]

P = ParamSpec("P")
T = TypeVar("T")

WORKERS: Final = min(4, os.cpu_count() or 1)


class Simulations:
    """What a function returns, worked out in other processes; it, its arguments and its result must pickle.

        @pytest.fixture(scope="module")
        def simulations() -> Iterator[Simulations]:
            with Simulations.running() as made:
                yield made
    """

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Simulations]:
        # A fork would copy locks that threads hold. All are up before a test looks at what it leaves behind.
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
            made = cls(pool)
            made.results([made.begin(os.getpid) for _ in range(WORKERS)])
            yield made

    def begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._pool.submit(function, *args, **kwargs)

    def results(self, begun: Sequence[Future[T]]) -> list[T]:
        """In the order of ``begun``."""
        return [future.result() for future in begun]
