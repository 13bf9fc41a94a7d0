from __future__ import annotations

import gc

import pytest

from headrace.commands.common import collecting_no_garbage


def test_garbage_is_collected_again_behind_what_loads_also_when_loading_fails():
    with collecting_no_garbage():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(OSError, match="no such disk"), collecting_no_garbage():
        raise OSError("no such disk")
    assert gc.isenabled()
