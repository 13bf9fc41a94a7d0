"""What is refused before the work whose result would go there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.commands.common import place_for
from headrace.files.output import OutputError, check_output, check_output_folder
from headrace.model.errors import StoreError
from headrace.model.places import place_of
from headrace.model.store import write


def refused(told: str, *, force: bool = False) -> str:
    with pytest.raises(OutputError) as found:
        place_for(told, force=force)
    assert found.value.exit_code == 2
    assert "\n" not in str(found.value)
    return str(found.value)


def all_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_new_file_may_be_written_in_a_folder_that_is_not_there_yet_and_looking_leaves_nothing(tmp_path: Path) -> None:
    where = place_for(f"{tmp_path}/deep/er/model")
    assert all_below(tmp_path) == set()
    write(where, b"data", "token")
    assert (tmp_path / "deep" / "er" / "model").read_bytes() == b"data"


def test_a_file_that_is_there_is_overwritten_by_force_alone_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"before")
    (tmp_path / "link").symlink_to("model")
    for name in ("model", "link"):
        assert "is there already: --force overwrites it" in refused(f"{tmp_path}/{name}")
    write(place_for(f"{tmp_path}/link", force=True), b"after", "token")
    assert (tmp_path / "model").read_bytes() == b"after"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_folder_is_no_file_not_even_by_force(tmp_path: Path, ending: str) -> None:
    assert "name a file in it" in refused(f"{tmp_path}{ending}", force=True)
    (tmp_path / "link").symlink_to(tmp_path)
    assert "name a file in it" in refused(f"{tmp_path}/link{ending}", force=True)


def test_a_new_name_that_ends_as_a_folder_does_is_refused(tmp_path: Path) -> None:
    assert "names a folder" in refused(f"{tmp_path}/new/")
    assert "names a folder" in refused("")


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_a_device_is_not_replaced_by_a_file(device: str) -> None:
    assert "is a device or a pipe" in refused(device, force=True)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or a pipe" in refused(f"{tmp_path}/pipe", force=True)
    # One that came after the look is not replaced either.
    where = place_for(f"{tmp_path}/later")
    os.mkfifo(tmp_path / "later")
    with pytest.raises(StoreError):
        write(where, b"data", "token")
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "later"}
    assert (tmp_path / "later").is_fifo()


def test_a_file_as_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is no folder" in refused(f"{tmp_path}/file/model")
    assert f"{tmp_path}/file is no folder" in refused(f"{tmp_path}/file/deep/model")


def test_links_in_a_circle_and_names_that_are_too_long_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert "symbolic links" in refused(f"{tmp_path}/one")
    assert "symbolic links" in refused(f"{tmp_path}/one/model") or "is no folder" in refused(f"{tmp_path}/one/model")
    assert "too long" in refused(f"{tmp_path}/{'n' * 300}")
    # The name would do, and not the one under which it is written.
    assert "too long" in refused(f"{tmp_path}/{'n' * 250}")


def test_where_nothing_can_be_written_is_tried_and_not_read_off_the_mode(tmp_path: Path) -> None:
    assert "can't be written" in refused("/proc/model")
    assert "can't be written" in refused("/proc/deep/model")


def test_a_path_in_a_folder_that_was_removed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "the folder that this runs in was removed" in refused("model")
    with pytest.raises(StoreError, match="was removed"):
        place_of("folder")
    with pytest.raises(OutputError, match="was removed"):
        check_output(Path("model"))
    with pytest.raises(OutputError, match="was removed"):
        check_output_folder(Path("folder"))


@pytest.mark.parametrize(
    ("told", "why"),
    [("ftp://host/model", "allowed schemes"), ("az://bucket/model", "is not installed"), ("a\0b", "no")],
)
def test_what_no_driver_can_open_is_refused(told: str, why: str) -> None:
    assert why in refused(told)


def test_a_file_in_a_store_is_overwritten_by_force_alone() -> None:
    where = place_for("memory://outputs/model")
    write(where, b"before", "token")
    assert "is there already" in refused("memory://outputs/model")
    assert place_for("memory://outputs/model", force=True) == where
