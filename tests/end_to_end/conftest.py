"""What several tests of whole programs look at."""

from __future__ import annotations

import pytest

from tests.support.learning_path import Learnt, learn


@pytest.fixture(scope="session")
def learnt(apache_bootstrap, tmp_path_factory) -> Learnt:
    """One run of the learning path for all tests that look at what it left behind."""
    return learn(apache_bootstrap, tmp_path_factory.mktemp("learning"))
