"""Work that is done again and again beside the driver's own."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def run_every(seconds: float, work: Callable[[], object], name: str) -> Generator[None]:
    """While the `with` is open, do the work in a thread of this name, and wait so long before each time."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
