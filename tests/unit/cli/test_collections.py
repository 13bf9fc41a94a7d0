from __future__ import annotations

import gc

import pytest

from headrace.commands.common import NEW_OBJECTS, collecting_no_garbage, freeze


def test_garbage_is_collected_again_behind_what_loads_also_when_loading_fails():
    with collecting_no_garbage():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(OSError, match="no such disk"), collecting_no_garbage():
        raise OSError("no such disk")
    assert gc.isenabled()


def test_a_service_that_runs_collects_rarely_and_walks_through_nothing_of_its_start():
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        freeze()
        assert gc.get_threshold() == (NEW_OBJECTS, *before[1:])
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
