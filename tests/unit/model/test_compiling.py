"""Kernels on disk are taken only while every source is what they were compiled from."""

import ast
import errno
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numba
import pytest

import headrace
import headrace_schemas
from headrace.model import compiling, lookup, words
from headrace.model.artifact import About, assemble, load, save
from headrace.model.backends import cpu, open_backend
from headrace.model.quantizing import quantize
from headrace.worker import metrics
from tests.support.networks import random_network
from tests.support.sources import parsed

PACKAGES = {package.__name__: Path(package.__file__).parent for package in (headrace, headrace_schemas)}
MODEL = PACKAGES["headrace"] / "model"


@pytest.mark.parametrize("dispatcher", [words.hash_text, cpu.answer_texts])
def test_kernels_are_kept_in_a_folder_named_after_all_sources(dispatcher: object) -> None:
    path = Path(dispatcher.stats.cache_path)  # type: ignore[attr-defined]
    assert path.parent.name == f"kernels-{compiling.sources_digest()}"


def test_those_of_other_packages_lie_there_in_a_folder_named_after_what_they_need_of_others() -> None:
    folder = Path(metrics._count.stats.cache_path).parent
    assert folder.parent.name == f"kernels-{compiling.sources_digest()}"
    assert folder.name == f"elsewhere-{compiling.elsewhere_digest()}"


class Source:
    """What a file defines and imports at its top, and the lines of its kernels."""

    def __init__(self, file: Path) -> None:
        tree = parsed(file.read_text())
        self.defined: dict[str, list[ast.AST]] = {}
        self.imported: dict[str, tuple[str, str | None]] = {}
        for statement in tree.body:
            match statement:
                case ast.Import(names):
                    self.imported |= {one.asname: (one.name, None) for one in names if one.asname}
                case ast.ImportFrom(module=str(module), names=names):
                    self.imported |= {one.asname or one.name: (module, one.name) for one in names}
                case ast.FunctionDef(name=name, body=body) | ast.ClassDef(name=name, body=body):
                    self.defined[name] = list(body)
                case ast.Assign(targets, value):
                    names = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
                    self.defined |= {name: [value] for name in names}
                case ast.AnnAssign(target=ast.Name(name), value=ast.AST() as value):
                    self.defined[name] = [value]
        functions = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)]
        self.kernels = [line for one in functions if any(map(is_kernel, one.decorator_list)) for line in one.body]


def is_kernel(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "kernel"


@cache
def source_of(file: Path) -> Source:
    return Source(file)


def file_of(module: str) -> Path | None:
    """Where ``module`` stands, None where it is not ours."""
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return None
    path = PACKAGES[package].joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def references(nodes: list[ast.AST]) -> Iterator[tuple[str, str | None]]:
    """The names that are read there, each with an attribute of it or with None."""
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        match node:
            case ast.Attribute(value=ast.Name(name), attr=attribute):
                yield name, attribute
            case ast.Name(name):
                yield name, None


def needed(file: Path, nodes: list[ast.AST], seen: set[tuple[Path, str]]) -> None:
    """Add to ``seen`` all that is read there of our files: what constants are computed from, and what is called."""
    source = source_of(file)
    for name, attribute in references(nodes):
        if name in source.defined and (file, name) not in seen:
            seen.add((file, name))
            needed(file, source.defined[name], seen)
        elif name in source.imported:
            module, what = source.imported[name]
            # The name of a module leads on with the attribute that is read of it.
            if what is not None and (inner := file_of(f"{module}.{what}")) is not None and inner.is_file():
                found, what = inner, attribute
            else:
                found, what = file_of(module), attribute if what is None else what
            if found is not None and what is not None:
                needed(found, [ast.Name(what)], seen)


def test_all_that_is_compiled_into_a_kernel_stands_in_the_sources_after_which_its_folder_is_named() -> None:
    elsewhere = set()
    for file in PACKAGES["headrace"].rglob("*.py"):
        seen: set[tuple[Path, str]] = set()
        needed(file, list(source_of(file).kernels), seen)
        outside = {other for other, _ in seen if other != file and not other.is_relative_to(MODEL)}
        assert not (outside and file.is_relative_to(MODEL)), file
        elsewhere |= outside
    assert elsewhere == set(compiling.ELSEWHERE)


def test_a_change_in_a_source_elsewhere_changes_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "infer.py").write_text("MICROS = 1_000_000")
    monkeypatch.setattr(compiling, "ELSEWHERE", (tmp_path / "infer.py",))
    before = compiling.elsewhere_digest.__wrapped__()
    (tmp_path / "infer.py").write_text("MICROS = 1_000")
    assert compiling.elsewhere_digest.__wrapped__() != before


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
    assert list(tmp_path.glob("kernels-*/elsewhere-*/*/*.nbi"))


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
