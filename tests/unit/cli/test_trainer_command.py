"""What `headrace trainer` looks at before it connects to anything: where and by what it will train one day."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import typer
from typer.testing import CliRunner

from headrace.commands.common import Invocation
from headrace.commands.trainer import trainer
from headrace.core.errors import UserError
from headrace.model.errors import StoreError, StoreFault
from headrace.process import lifecycle

app = typer.Typer()
app.command()(trainer)


class ConnectedError(Exception):
    """The trainer got as far as its connections."""


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise ConnectedError

    monkeypatch.setattr(lifecycle, "run", run)


def start(folder: Path, *sets: str) -> None:
    given = Invocation(environ={"XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)}, sets=sets)
    CliRunner().invoke(app, [], obj=given, catch_exceptions=False)


def refused(folder: Path, *sets: str) -> str:
    with pytest.raises(UserError) as told:
        start(folder, *sets)
    assert told.value.exit_code == 2
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_store_that_can_be_written_to_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(ConnectedError):
        start(tmp_path, f"trainer.store={tmp_path / 'store'}")
    assert not list((tmp_path / "store").iterdir())


def test_a_store_that_can_not_be_written_to_ends_the_trainer_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(tmp_path, f"trainer.store={tmp_path / 'file'}").startswith("trainer.store: ")
    assert "/proc" in refused(tmp_path, "trainer.store=/proc/headrace")


def test_a_store_that_is_not_allowed_ends_the_trainer_at_its_start(tmp_path: Path) -> None:
    told = refused(tmp_path, f"trainer.store={tmp_path / 'store'}", f"store.allowed={tmp_path / 'other'}")
    assert told.startswith("trainer.store: ")
    assert "lies below no allowed place" in told


def test_a_store_whose_driver_is_missing_ends_the_trainer_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(scheme: str) -> None:
        raise ImportError(scheme)

    monkeypatch.setattr(fsspec, "filesystem", missing)
    assert "its driver is not installed (pip install 'headrace[s3]')" in refused(
        tmp_path, "trainer.store=s3://b/models"
    )


def test_a_store_that_does_not_answer_may_come_back_so_the_trainer_is_to_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(scheme: str) -> None:
        raise ConnectionError(scheme)

    monkeypatch.setattr(fsspec, "filesystem", away)
    with pytest.raises(StoreError) as told:
        start(tmp_path, "trainer.store=s3://b/models")
    assert (told.value.fault, told.value.exit_code) == (StoreFault.AWAY, 1)


def test_vectors_that_are_not_there_end_the_trainer_at_its_start(tmp_path: Path) -> None:
    told = refused(tmp_path, f"trainer.store={tmp_path}", "trainer.vectors=no-such-vectors")
    assert "no word vectors are called 'no-such-vectors'" in told


def test_a_holdout_that_can_not_be_read_ends_the_trainer_at_its_start(tmp_path: Path) -> None:
    store = f"trainer.store={tmp_path}"
    assert "nowhere.csv" in refused(tmp_path, store, f"gate.holdout={tmp_path / 'nowhere.csv'}")
    (tmp_path / "rows.csv").write_text("text;wrong\na;b\n")
    assert "label" in refused(tmp_path, store, f"gate.holdout={tmp_path / 'rows.csv'}")
    (tmp_path / "rows.csv").write_text("text~label\na~b\n")
    assert "label" in refused(tmp_path, store, f"gate.holdout={tmp_path / 'rows.csv'}")
    with pytest.raises(ConnectedError):
        start(tmp_path, store, f"gate.holdout={tmp_path / 'rows.csv'}", "gate.holdout_delimiter=~")
