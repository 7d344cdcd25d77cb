"""Objects of the start of a process are left out of its garbage collections."""

import gc

import pytest

from stream_app.garbage_collection import YOUNG_OBJECTS, exclude_started_objects, without_collections


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


def test_nothing_is_collected_during_imports_and_their_objects_are_left_out() -> None:
    with without_collections():
        assert not gc.isenabled()
        imported: list[list[int]] = [[] for _ in range(1_000)]
    assert gc.isenabled()
    assert not any(found is imported for found in gc.get_objects())


def test_collections_go_on_after_an_import_that_failed() -> None:
    with pytest.raises(ImportError), without_collections():
        raise ImportError
    assert gc.isenabled()
