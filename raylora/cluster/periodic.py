"""Work that is done again and again beside the driver's own."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from raylora.records import Say


@contextmanager
def run_every(seconds: float, work: Callable[[], object], name: str, say: Say) -> Generator[None]:
    """While the `with` is open, do the work in a thread of this name, and wait so long before each time.

    No exception ends it, as `never_failing` says.
    """
    stop, tried = threading.Event(), never_failing(work, name, say)

    def run() -> None:
        while not stop.wait(seconds):
            tried()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def never_failing(work: Callable[[], object], name: str, say: Say) -> Callable[[], None]:
    """The work, but each kind of failure is said, the first time."""
    said: set[type[Exception]] = set()

    def tried() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread
            if type(error) not in said:
                said.add(type(error))
                with suppress(Exception):  # a terminal that is gone
                    say(f"warning    {name}: {type(error).__name__}: {error}; it is tried again")

    return tried
