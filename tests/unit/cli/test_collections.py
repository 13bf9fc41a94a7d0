from __future__ import annotations

import gc

from headrace.commands.common import NEW_OBJECTS, freeze


def test_a_service_that_runs_collects_rarely_and_walks_through_nothing_of_its_start():
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        freeze()
        assert gc.get_threshold() == (NEW_OBJECTS, *before[1:])
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
