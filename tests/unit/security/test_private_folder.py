"""The attacks on a folder whose name everybody can guess, in a folder that everybody can write."""

import logging
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from headrace.kafka.static_membership import static_member
from headrace.security.private_folder import (
    NoFolderError,
    PrivateFolder,
    UnsafeFolderError,
    private_folder,
    temporary_folder,
)

WRITE = os.O_RDWR | os.O_CREAT
STRANGER = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user, as only root can")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder like /tmp: everybody can write, and only owners can remove."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def ours(shared: Path) -> PrivateFolder:
    return private_folder({"TMPDIR": str(shared)})


def written(folder: PrivateFolder, name: str) -> Path:
    os.close(folder.open(name, WRITE))
    return folder.path / name


def test_folders_and_files_are_this_users_alone_whatever_the_umask(shared):
    umask = os.umask(0)
    try:
        file = written(ours(shared).folder("trainings"), "1.log")
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file.parent.parent, file.parent, file)]
    assert modes == [0o700, 0o700, 0o600]
    assert file.parent.parent == shared / f"headrace-{os.geteuid()}"


def test_a_folder_that_others_could_read_but_not_write_is_closed_to_them(shared):
    """As versions before left it."""
    (shared / f"headrace-{os.geteuid()}").mkdir(mode=0o755)
    file = written(ours(shared), "1.lock")
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_link_in_the_folders_place_is_not_followed(shared, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    ours(shared).path.symlink_to(elsewhere)
    with pytest.raises(UnsafeFolderError, match=r"headrace-\d+ is not safe to use: it is a symbolic link of .*TMPDIR"):
        written(ours(shared), "1.lock")
    assert not list(elsewhere.iterdir())


@as_root
def test_a_folder_of_another_user_is_named_with_its_owner_and_not_used(shared):
    ours(shared).path.mkdir(mode=0o700)
    os.chown(ours(shared).path, STRANGER, STRANGER)
    with pytest.raises(UnsafeFolderError, match=rf"headrace-\d+ is not safe to use: it belongs to .*{STRANGER}"):
        written(ours(shared), "1.lock")
    assert not list(ours(shared).path.iterdir())


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_is_not_used(shared, mode):
    ours(shared).path.mkdir()
    ours(shared).path.chmod(mode)
    with pytest.raises(UnsafeFolderError, match="others may have put something into it"):
        written(ours(shared), "1.lock")


def test_the_folder_inside_is_looked_at_like_the_outer_one(shared, tmp_path):
    with ours(shared).descriptor():
        (ours(shared).path / "trainings").symlink_to(tmp_path)
    with pytest.raises(UnsafeFolderError, match="trainings is not safe to use"):
        written(ours(shared).folder("trainings"), "1.log")


def test_a_folder_that_everybody_can_replace_is_not_used(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(UnsafeFolderError, match="everybody can replace what is in it"):
        written(ours(tmp_path), "1.lock")


def test_a_lock_file_that_is_a_link_leaves_its_victim_as_it_is(shared, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    place = {"host": "here", "machine": "abc", "cluster": "127.0.0.1:9092", "group": "headrace"}
    with static_member(ours(shared), **place):
        (lock,) = ours(shared).path.iterdir()
    lock.unlink()
    lock.symlink_to(victim)
    with pytest.raises(UnsafeFolderError, match=r"\.lock is not safe to use: it is a symbolic link"):
        static_member(ours(shared), **place).__enter__()
    assert victim.read_text() == "precious"


def test_a_second_name_of_a_file_elsewhere_is_not_opened(shared, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with ours(shared).descriptor():
        (ours(shared).path / "1.lock").hardlink_to(victim)
    with pytest.raises(UnsafeFolderError, match="second name"):
        written(ours(shared), "1.lock")
    assert victim.read_text() == "precious"


@as_root
def test_a_file_of_another_user_is_not_opened(shared):
    os.chown(written(ours(shared), "1.log"), STRANGER, STRANGER)
    with pytest.raises(UnsafeFolderError, match=rf"it belongs to .*{STRANGER}"):
        written(ours(shared), "1.log")


def test_a_pipe_in_a_files_place_does_not_hold_us_up(shared):
    with ours(shared).descriptor():
        os.mkfifo(ours(shared).path / "1.log")
    raised: list[Exception] = []

    def open_it() -> None:
        try:
            written(ours(shared), "1.log")
        except UnsafeFolderError as error:
            raised.append(error)

    opening = threading.Thread(target=open_it, daemon=True)
    opening.start()
    opening.join(60)
    assert raised


def test_opening_a_file_truncates_nothing_and_a_name_stays_in_the_folder(shared):
    written(ours(shared), "1.log").write_text("kept")
    assert written(ours(shared), "1.log").read_text() == "kept"
    with pytest.raises(ValueError, match="truncated"):
        ours(shared).open("1.log", os.O_WRONLY | os.O_TRUNC)
    for name in ("..", "a/b", ""):
        with pytest.raises(ValueError, match="no name of a file"):
            written(ours(shared), name)


def test_the_users_runtime_folder_comes_first_where_it_is_the_users_alone(shared, tmp_path):
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environ = {"TMPDIR": str(shared), "XDG_RUNTIME_DIR": str(runtime)}
    assert private_folder(environ).path == runtime / "headrace"
    runtime.chmod(0o755)
    assert private_folder(environ) == ours(shared)
    assert private_folder(environ | {"XDG_RUNTIME_DIR": "relative"}) == ours(shared)


def test_a_temporary_folder_that_cannot_be_written_is_said_once_and_the_systems_is_taken(tmp_path, caplog):
    absent = tmp_path / "absent"
    with caplog.at_level(logging.WARNING, "headrace"):
        for _ in range(2):
            assert private_folder({"TMPDIR": str(absent)}) == ours(Path(tempfile.gettempdir()))
    [record] = caplog.records
    assert getattr(record, "event", "") == "temporary.elsewhere"
    assert record.fields["why"] == f"TMPDIR is {absent}, which can't be written"


def test_where_nothing_can_be_written_the_error_names_the_setting(monkeypatch, tmp_path):
    def none():
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(NoFolderError, match=r"TMPDIR is .*absent-too, which can't.*Set TMPDIR to a folder"):
        private_folder({"TMPDIR": str(tmp_path / "absent-too")})


def test_a_temporary_folder_is_its_users_alone_and_gone_with_the_block(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with temporary_folder("a-") as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []
