"""Torch work beside the one thread that runs models."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Callable[[], T]) -> "Future[T]":
    """Run in a thread that ends with the work.

    Every thread that ever ran a parallel operation keeps a team of OpenMP threads until it ends, and once a process has
    more of those than cores, libgomp lets all of them sleep at each of a forward's hundred barriers (its
    `gomp_throttled_spin_count_var`): after a base model was loaded in a thread that stayed, a forward of 1 x 25 tokens
    took 11 ms in another one in place of 7.5.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            done.set_exception(error)

    Thread(target=run, name="raylora-passing", daemon=True).start()
    return done
