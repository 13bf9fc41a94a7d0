"""What is kept is believed later, so it lies only where no other user can put anything."""

import logging
import os
from pathlib import Path

import pytest

from headrace.security.private_folder import (
    NoFolderError,
    keep_what_matplotlib_caches,
    kept_folder,
    kept_folders,
    needed_folder,
    why_unsafe,
    why_unusable,
)


def test_the_cache_of_the_user_comes_first_and_what_is_temporary_second(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    own = f"headrace-{os.geteuid()}"
    assert list(kept_folders("x", environ)) == [tmp_path / "home/.cache/headrace/x", tmp_path / own / "x"]
    given = environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert next(kept_folders("x", given)) == tmp_path / "cache/headrace/x"


@pytest.mark.parametrize("name", ["HOME", "XDG_CACHE_HOME"])
def test_a_relative_folder_is_nobodys(tmp_path: Path, name: str) -> None:
    environ = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)} | {name: "~"}
    assert all(folder.is_absolute() and "~" not in folder.parts for folder in kept_folders("x", environ))


def test_folders_are_made_for_their_user_alone_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = kept_folder("x", {"HOME": str(tmp_path / "home")})
    finally:
        os.umask(before)
    assert folder == tmp_path / "home/.cache/headrace/x"
    assert all(level.stat().st_mode & 0o777 == 0o700 for level in (folder, folder.parent, folder.parents[2]))


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o1777])
def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path, mode: int) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x").chmod(mode)
    assert "others can write" in (why_unusable(tmp_path / "x") or "")


def test_a_folder_that_others_can_replace_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "above" / "x").mkdir(parents=True)
    (tmp_path / "above").chmod(0o777)
    assert str(tmp_path / "above") in (why_unsafe(tmp_path / "above" / "x") or "")
    # Where the sticky bit is set nobody can replace what isn't his.
    (tmp_path / "above").chmod(0o1777)
    assert why_unsafe(tmp_path / "above" / "x") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_user_is_not_used_nor_one_that_a_link_of_theirs_leads_to(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "x").mkdir(parents=True)
    os.chown(theirs, 65534, 65534)
    assert "belongs to another user (65534)" in (why_unusable(theirs / "x") or "")
    (tmp_path / "link").symlink_to(theirs / "x")
    assert "belongs to another user (65534)" in (why_unusable(tmp_path / "link") or "")


def test_what_is_a_file_or_on_a_path_through_one_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "can't be written" in (why_unusable(tmp_path / "file") or "")
    assert "can't be written" in (why_unusable(tmp_path / "file" / "x") or "")


def test_what_is_needed_is_kept_elsewhere_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    environ = {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    elsewhere = tmp_path / f"headrace-{os.geteuid()}" / "x"
    with caplog.at_level(logging.WARNING, "headrace"):
        assert needed_folder("x", environ) == elsewhere
    [record] = caplog.records
    assert getattr(record, "event", "") == "cache.elsewhere"
    assert record.__dict__["fields"]["folder"] == str(elsewhere)


def test_what_can_be_kept_nowhere_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / f"headrace-{os.geteuid()}").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(NoFolderError, match=r"nowhere can x be kept: .*file.* can't be written.*Set XDG_CACHE_HOME"):
        needed_folder("x", {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)})


def test_matplotlib_is_told_where_to_keep_its_fonts_only_where_there_is_no_home(tmp_path: Path) -> None:
    at_home = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    told = {"HOME": "/nonexistent", "TMPDIR": str(tmp_path), "MPLCONFIGDIR": "there"}
    for environ in (at_home, told):
        before = dict(environ)
        keep_what_matplotlib_caches(environ)
        assert environ == before
    homeless = {"HOME": str(tmp_path / "absent"), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    keep_what_matplotlib_caches(homeless)
    assert homeless["MPLCONFIGDIR"] == str(tmp_path / "headrace" / "matplotlib")
