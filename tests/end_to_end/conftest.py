"""What several tests of the real programs begin with: a version, and topics on each kind of broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.own_topics import OwnTopics
from tests.support.random_versions import random_version


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """An artifact of random weights with a canary that it answers."""
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    random_version(3, path)
    return path


# Kafka itself is what users have. On the embedded broker a session has to end first, so there the tests are slow ones.
@pytest.fixture(
    params=[pytest.param("embedded", marks=pytest.mark.slow), pytest.param("apache", marks=pytest.mark.apache)]
)
def place(request, model, tmp_path) -> OwnTopics:
    """Topics of a test's own on each kind of broker, and what programs need to reach them."""
    bootstrap = request.getfixturevalue(f"{request.param}_bootstrap")
    place = OwnTopics(bootstrap, model, tmp_path, embedded=request.param == "embedded")
    place.apply()
    return place
