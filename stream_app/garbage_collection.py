"""The garbage collector of a process that runs for long.

A full collection visits every object that can be part of a cycle. After the start there are about 200,000 of
them, nearly all of which live as long as the process: modules, classes, models, statements. Such a collection
stops all threads, for 80 to 170 ms as measured here, and a worker of small jobs makes one every few seconds.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 5_000
"""New objects after which the youngest are collected. Python's default is 700, about what one job makes."""


@contextmanager
def without_collections() -> Iterator[None]:
    """Collect no garbage in the block, which imports modules, and leave its objects out of later collections.

    Collections would take a fifth of the time of the imports. They would find 0.3 MB of garbage, which stays.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def exclude_started_objects() -> None:
    """Collect garbage, then leave all objects that exist out of later collections. Call it after the start.

    Objects that are freed by their reference count are freed as before.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
