"""What every store has to do: an artifact is there whole or not at all, and what is wrong is said with its URI."""

import errno
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable

import fsspec
import pytest

from headrace.commands.common import place_for
from headrace.files.output import OutputError
from headrace.model import store
from headrace.model.artifact import About, assemble, load, save
from headrace.model.errors import ArtifactError
from headrace.model.quantizing import quantize
from tests.contract.store.conftest import BUCKET
from tests.support.networks import random_network
from tests.support.places import ANYWHERE

PRIVATE = "correct horse battery staple"
NETWORK = quantize(random_network(6))
ONE, OTHER = (assemble(NETWORK, About(parent=parent)) for parent in ("one", "other"))


def names_in(folder: str) -> list[str]:
    files, path = fsspec.url_to_fs(folder)
    files.invalidate_cache()
    return sorted(found.rpartition("/")[2] for found in files.find(path))


def test_what_is_saved_is_loaded_and_lies_alone(folder: str) -> None:
    save(ONE, f"{folder}/deep/model")
    loaded = load(f"{folder}/deep/model", ONE.sha256, ONE.size)
    assert (loaded.version, loaded.about, loaded.size) == (ONE.version, ONE.about, ONE.size)
    assert names_in(folder) == ["model"]


def test_saving_again_replaces(folder: str) -> None:
    save(ONE, f"{folder}/model")
    save(OTHER, f"{folder}/model")
    assert load(f"{folder}/model").version == OTHER.version
    assert names_in(folder) == ["model"]


def test_a_reader_beside_a_writer_sees_one_artifact_or_the_other(folder: str) -> None:
    uri = f"{folder}/model"
    save(ONE, uri)
    seen, ended = set(), threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(load(uri).version)

    reader = threading.Thread(target=read)
    failures = []
    reader_hook, threading.excepthook = threading.excepthook, lambda failed: failures.append(failed.exc_value)
    try:
        reader.start()
        for artifact in (OTHER, ONE) * 10:
            save(artifact, uri)
    finally:
        ended.set()
        reader.join()
        threading.excepthook = reader_hook
    assert failures == []
    assert seen <= {ONE.version, OTHER.version}
    assert seen


def test_a_save_that_fails_leaves_what_was_there(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save(ONE, f"{folder}/model")
    files, _ = fsspec.url_to_fs(folder)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, f"no room, and a secret: {PRIVATE}")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "rename") if folder.startswith("file:") else (files, "pipe_file")), fail)
        with pytest.raises(store.StoreError, match=f"{folder}/model could not be written: .*store-failed") as refused:
            save(OTHER, f"{folder}/model")
    # Neither the error nor a traceback in a log quotes the driver.
    assert PRIVATE not in "".join(traceback.format_exception(refused.value))
    assert load(f"{folder}/model").version == ONE.version
    assert names_in(folder) == ["model"]


def test_an_artifact_that_is_not_there_is_named(folder: str) -> None:
    save(ONE, f"{folder}/model")
    for absent in (f"{folder}/other", f"{folder}/no/folder/model", folder):
        with pytest.raises(store.StoreError, match=f"{absent}: there is no such artifact"):
            load(absent)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[: len(data) // 2], "its record says .* truncated"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "SHA-256 .* its record says .* altered"),
    ],
)
def test_a_file_that_is_not_the_one_recorded_is_refused(
    folder: str, damage: Callable[[bytes], bytes], said: str
) -> None:
    save(ONE, f"{folder}/model")
    where = ANYWHERE.locate(f"{folder}/model")
    store.write(where, damage(store.read(where)), "damage")
    with pytest.raises(ArtifactError, match=f"{folder}/model has .*{said}"):
        load(f"{folder}/model", ONE.sha256, ONE.size)


def test_what_is_removed_is_gone_and_removing_it_again_is_no_error(folder: str) -> None:
    uri = f"{folder}/model"
    save(ONE, uri)
    where = ANYWHERE.locate(uri)
    assert store.remove(where) is True
    assert store.size_of(where) is None
    assert store.remove(where) is False


def test_a_file_that_others_replaced_is_seen_as_it_is_now(folder: str) -> None:
    uri = f"{folder}/model"
    where = ANYWHERE.locate(uri)
    assert store.size_of(where) is None
    files, path = fsspec.url_to_fs(uri)
    files.makedirs(files._parent(path), exist_ok=True)
    files.pipe_file(path, b"four")
    assert store.size_of(where) == 4
    files.find(path.rpartition("/")[0])
    # As another process would, behind the back of this one's driver.
    other = type(files)(skip_instance_cache=True)
    other.pipe_file(path, b"fives")
    assert (store.size_of(where), store.read(where)) == (5, b"fives")


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_not_made() -> None:
    with pytest.raises(store.StoreError, match=r"s3://headrace-absent/model could not be written: .*bucket"):
        save(ONE, "s3://headrace-absent/model")
    with pytest.raises(store.StoreError, match="there is no such artifact"):
        load("s3://headrace-absent/model")
    files, _ = fsspec.url_to_fs("s3://headrace-absent")
    assert files.ls("", refresh=True) == [BUCKET]


@pytest.mark.usefixtures("s3")
def test_a_store_that_cannot_be_reached_is_said_and_not_taken_for_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    files, _ = fsspec.url_to_fs("s3://x")
    type(files).clear_instance_cache()
    monkeypatch.setattr(type(files), "retries", 1)
    with pytest.raises(
        store.StoreError, match=r"s3://headrace-test/model could not be looked at: the store can't be reached"
    ):
        load("s3://headrace-test/model")
    type(files).clear_instance_cache()


def test_a_store_of_no_known_kind_is_said() -> None:
    with pytest.raises(store.StoreError, match="'nothing://here' is refused: allowed schemes are file, s3"):
        load("nothing://here")


def test_a_store_whose_driver_is_not_installed_is_said() -> None:
    # In a process of its own: a driver that was found once is kept.
    code = "import sys; sys.modules['s3fs'] = None; from headrace.model.artifact import load; load('s3://bucket/model')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "s3://bucket/model could not be looked at: its driver is not installed" in done.stderr
    assert "pip install 'headrace[s3]'" in done.stderr


def test_whether_a_file_can_be_written_is_looked_at_and_leaves_nothing(folder: str) -> None:
    where = place_for(f"{folder}/model")
    assert names_in(folder) == []
    save(ONE, where)
    with pytest.raises(OutputError, match="is there already: --force overwrites it"):
        place_for(f"{folder}/model")
    assert place_for(f"{folder}/model", force=True) == where
    assert names_in(folder) == ["model"]


def test_a_bucket_that_is_not_there_is_said_before_the_work(s3: None) -> None:
    with pytest.raises(OutputError, match="there is no such file, folder or bucket"):
        place_for("s3://no-such-bucket/model")
