"""Objects of the start of a process are left out of its garbage collections."""

import gc

from stream_app.worker.garbage_collection import YOUNG_OBJECTS, exclude_started_objects


def test_objects_that_exist_are_left_out_and_new_ones_are_collected() -> None:
    before = gc.get_threshold()
    old: list[list[int]] = [[] for _ in range(1_000)]
    try:
        exclude_started_objects()
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        assert gc.get_freeze_count() > len(old)
        assert not any(found is old for found in gc.get_objects())
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert gc.collect() >= 1
    finally:
        gc.set_threshold(*before)  # what is left out stays so: later collections would visit all imports
