"""Kernels on disk are taken only while every source is what they were compiled from."""

from pathlib import Path

import numba
import pytest

from headrace.model import compiling, hashing
from headrace.model.backends import kernels


@pytest.mark.parametrize("dispatcher", [hashing.hash_text, kernels.answer_texts])
def test_kernels_are_kept_in_a_folder_named_after_all_sources(dispatcher: object) -> None:
    path = Path(dispatcher.stats.cache_path)  # type: ignore[attr-defined]
    assert path.parent.name == f"kernels-{compiling.sources_digest()}"


def test_a_change_in_any_source_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_PACKAGE", tmp_path)
    digest = compiling.sources_digest.__wrapped__
    (tmp_path / "backends").mkdir()
    (tmp_path / "hashing.py").write_text("a")
    (tmp_path / "backends" / "kernels.py").write_text("b")
    before = digest()
    assert digest() == before
    (tmp_path / "backends" / "kernels.py").write_text("c")
    assert digest() != before


def test_the_users_choice_of_numbas_cache_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))

    @compiling.kernel
    def double(value):  # type: ignore[no-untyped-def]
        return 2 * value

    assert double(21) == 42
    assert str(tmp_path) == numba.core.config.CACHE_DIR
    assert list(tmp_path.glob("kernels-*/*/*.nbi"))
