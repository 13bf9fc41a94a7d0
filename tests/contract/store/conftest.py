"""The stores that artifacts are tested on: files, memory, and S3 as moto's server speaks it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

BUCKET = "headrace-test"


@pytest.fixture(params=["file", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a folder that nobody has written to."""
    match request.param:
        case "file":
            return f"file://{tmp_path}/store"
        case "memory":
            return f"memory://{uuid.uuid4().hex}"
        case _:
            request.getfixturevalue("s3")
            return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def s3() -> Iterator[None]:
    """An S3 server on this machine, where the environment says that S3 is, and one bucket on it."""
    pytest.importorskip("s3fs", reason="S3 needs s3fs: pip install 'headrace[s3]'")
    server_module = pytest.importorskip("moto.server", reason="no S3 server: pip install 'moto[server]'")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
