"""Kernels on disk are taken only while every source is what they were compiled from."""

import errno
import os
from pathlib import Path

import numba
import pytest

from headrace.model import compiling, lookup, words
from headrace.model.artifact import About, assemble, load, save
from headrace.model.backends import cpu, open_backend
from headrace.model.quantizing import quantize
from tests.support.networks import random_network


@pytest.mark.parametrize("dispatcher", [words.hash_text, cpu.answer_texts])
def test_kernels_are_kept_in_a_folder_named_after_all_sources(dispatcher: object) -> None:
    path = Path(dispatcher.stats.cache_path)  # type: ignore[attr-defined]
    assert path.parent.name == f"kernels-{compiling.sources_digest()}"


def test_a_change_in_any_source_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_PACKAGE", tmp_path)
    digest = compiling.sources_digest.__wrapped__
    (tmp_path / "backends").mkdir()
    (tmp_path / "words.py").write_text("a")
    (tmp_path / "backends" / "cpu.py").write_text("b")
    before = digest()
    assert digest() == before
    (tmp_path / "backends" / "cpu.py").write_text("c")
    assert digest() != before


def test_the_users_choice_of_numbas_cache_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))

    @compiling.kernel
    def double(value):  # type: ignore[no-untyped-def]
        return 2 * value

    assert double(21) == 42
    assert str(tmp_path) == numba.core.config.CACHE_DIR
    assert list(tmp_path.glob("kernels-*/*/*.nbi"))


def test_a_full_disk_costs_the_cache_and_not_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", full)

    @compiling.kernel
    def triple(value):  # type: ignore[no-untyped-def]
        return 3 * value

    assert triple(14) == 42
    assert not list(tmp_path.rglob("*.nbi"))


def test_an_artifact_from_a_file_and_one_from_memory_share_what_is_compiled(tmp_path: Path) -> None:
    artifact = assemble(quantize(random_network(1)), About())
    save(artifact, str(tmp_path / "model"))
    for opened in (artifact, load(str(tmp_path / "model"))):
        open_backend("cpu", opened).classify([b"the good film"], ranking=1)
    assert len(cpu.answer_texts.signatures) == 1
    assert len(lookup._insert.signatures) == 1


def test_a_chosen_cache_that_others_can_write_is_left_alone_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))

    @compiling.kernel
    def quadruple(value):  # type: ignore[no-untyped-def]
        return 4 * value

    assert quadruple(4) == 16
    assert not list(tmp_path.rglob("*.nb?"))
    assert [getattr(record, "event", "") for record in caplog.records] == ["kernels.elsewhere"]


def test_a_cache_that_a_stranger_can_write_beside_the_sources_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_PACKAGE", tmp_path)
    folder = tmp_path / "__pycache__" / "kernels-x"
    assert compiling._is_as_safe_as_the_sources(folder)
    folder.chmod(0o777)
    assert not compiling._is_as_safe_as_the_sources(folder)
