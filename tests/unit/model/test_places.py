"""Where files may lie: whatever a record says, only what is below an allowed place is opened, and nothing runs."""

from __future__ import annotations

import ast
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model import local_files, store
from headrace.model.errors import StoreError, StoreFault
from headrace.model.places import Location, Places, as_told, place_of, places_of
from tests.support.sources import parsed

SERVICES = Path(__file__).parents[3] / "services"

PLACES = places_of(("/srv/store", "s3://bucket/folder", "memory://place"))

HOSTILE = [
    # Other schemes: each is a program that a record would choose.
    "reference://x::data:application/json,{}",
    "reference://::memory://place/spec.json",
    "reference://place/x",
    "data:text/plain;base64,AAAA",
    "data://text/plain,x",
    "ftp://10.0.0.1/x",
    "http://169.254.169.254/latest/meta-data",
    "https://place/x",
    "sftp://user@host/x",
    "ssh://host/x",
    "smb://host/share/x",
    "webhdfs://host/x",
    "github://org:repo@main/x",
    "git://srv/store:main@/x",
    "zip://x::file:///srv/store/a.zip",
    "tar://x::s3://bucket/folder/a.tar",
    "libarchive://x",
    "simplecache::s3://bucket/folder/x",
    "filecache::file:///srv/store/x",
    "blockcache://x",
    "dir://x::file:///srv/store",
    "local:///srv/store/x",
    "generic:///srv/store/x",
    "hf://org/model",
    "dask://x",
    "jlab://x",
    "gcs://bucket/folder/x",
    "unknown://x",
    "://srv/store/x",
    "file:/srv/store/x",
    "file:srv/store/x",
    "file://srv/store/x",
    "file://localhost/srv/store/x",
    # Chains inside of a path.
    "/srv/store/a::b",
    "file:///srv/store/x::memory://place/y",
    # Case.
    "FILE:///srv/store/x",
    "S3://bucket/folder/x",
    "Memory://place/x",
    "/SRV/store/x",
    "s3://BUCKET/folder/x",
    # Ways up, also hidden ones.
    "/srv/store/../secret",
    "/srv/store/./x",
    "/srv/store/a/../../secret",
    "file:///srv/store/..",
    "file:///srv/store/%2e%2e/secret",
    "file:///srv/store/%2E./secret",
    "file:///srv/store/%252e%252e/secret",
    "file:///srv/store/a%2f..%2f..%2fsecret",
    "file:///srv/store/%5c..%5csecret",
    "file:///srv/store/..\\..\\secret",
    "\\\\host\\share\\x",
    "file:///srv/store/%00x",
    "file:///srv/store/%c0%ae%c0%ae/secret",
    "s3://bucket/folder/../secret",
    "s3://bucket/folder/%2e%2e/secret",
    "memory://place/../elsewhere",
    # Empty names.
    "//srv/store/x",
    "/srv//store/x",
    "/srv/store//x",
    "file:////srv/store/x",
    "s3:///bucket/folder/x",
    "s3://bucket//folder/x",
    "s3://bucket/folder//x",
    # What drivers read as more than a name.
    "s3://bucket/folder/x?versionId=1",
    "s3://bucket/folder/x#fragment",
    "s3://bucket/folder/*",
    "s3://bucket/folder/[ab]",
    "file:///srv/store/x?y",
    "s3://key:secret@bucket/folder/x",
    "s3://bucket@host/folder/x",
    "s3://bucket:9000/folder/x",
    "s3://arn:aws:s3:eu:1:accesspoint/bucket/folder/x",
    "abfs://bucket@account.dfs.core.windows.net/folder/x",
    # Elsewhere.
    "/etc/passwd",
    "file:///etc/passwd",
    "/srv/storehouse/x",
    "/srv",
    "/srv/store",
    "/srv/store/",
    "s3://bucket/other/x",
    "s3://bucket-2/folder/x",
    "gs://bucket/folder/x",
    "az://bucket/folder/x",
    "s3://bucket/folder",
    "memory://placed/x",
    "place/x",
    "x",
    "~/x",
    "",
    "/",
    "s3://",
    "memory://",
    # What can't be shown.
    "/srv/store/\0x",
    "/srv/store/\nx",
    "/srv/store/\x1b[31mx",
    "/srv/store/\u202ex",
    "/srv/store/\ud800x",
    "/srv/store/" + "x" * 3000,
]


@pytest.mark.parametrize("uri", HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
def test_a_hostile_uri_is_refused_in_our_words(uri: str) -> None:
    with pytest.raises(StoreError, match=r"is refused: .*\(store-refused\)") as refused:
        PLACES.locate(uri)
    assert refused.value.fault is StoreFault.REFUSED
    assert str(refused.value).isprintable()


def test_a_place_that_is_not_allowed_is_refused_with_the_setting_that_allows_it() -> None:
    with pytest.raises(StoreError, match=r"no allowed place \(store\.allowed: file:///srv/store, s3://bucket/folder, "):
        PLACES.locate("/home/x")


@pytest.mark.parametrize(
    ("uri", "spelled"),
    [
        ("/srv/store/a/b.safetensors", "file:///srv/store/a/b.safetensors"),
        ("file:///srv/store/x", "file:///srv/store/x"),
        ("s3://bucket/folder/x", "s3://bucket/folder/x"),
        ("s3a://bucket/folder/x", "s3://bucket/folder/x"),
        ("memory:///place/x", "memory://place/x"),
        ("/srv/store/with space/50%/名前..txt", "file:///srv/store/with space/50%/名前..txt"),
    ],
)
def test_what_lies_below_a_place_is_found_and_spelled_in_one_way(uri: str, spelled: str) -> None:
    found = PLACES.locate(uri)
    assert found.uri == spelled
    assert PLACES.locate(found.uri) == found


ALPHABET = st.sampled_from([*"/\\.:%?#@ab2eE5cfF0", "..", "::", "file://", "s3://", "/srv/store/", "memory://place/"])


@given(st.lists(ALPHABET, max_size=14).map("".join) | st.text(max_size=30))
def test_whatever_is_accepted_lies_below_an_allowed_place(text: str) -> None:
    for uri in (text, f"/srv/store/{text}", f"file:///srv/store/{text}", f"s3://bucket/folder/{text}"):
        try:
            found = PLACES.locate(uri)
        except StoreError:
            continue
        assert found.place in PLACES.allowed
        assert found.below
        assert not any(name in {"", ".", ".."} or "/" in name for name in found.names)
        if found.scheme == "file":
            path = "/" + "/".join(found.names)
            assert os.path.normpath(path) == path
            assert path.startswith("/srv/store/")
        else:
            assert found.uri.startswith(("s3://bucket/folder/", "memory://place/"))


@given(st.text(st.characters(exclude_characters="/"), min_size=1, max_size=12))
def test_a_name_of_a_file_that_is_accepted_is_that_file(name: str) -> None:
    try:
        found = PLACES.locate(f"/srv/store/{name}")
    except StoreError:
        return
    assert found.below == (name,)


def test_a_setting_that_names_no_place_is_refused() -> None:
    for folder in ("ftp://host", "s3://", "/a,b", "s3://b/../c"):
        with pytest.raises(StoreError, match="is refused"):
            place_of(folder)
    assert place_of("../x").uri == f"file://{Path.cwd().parent / 'x'}"


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, Path, Places]:
    """A store with a file, and a secret beside it."""
    inside, outside = tmp_path / "store", tmp_path / "outside"
    for folder in (inside / "deep", outside):
        folder.mkdir(parents=True)
    (inside / "file").write_bytes(b"file")
    (outside / "secret").write_bytes(b"secret")
    return inside, outside, places_of((str(inside),))


def everything(where: Location) -> list[object]:
    """What each function of the store makes of it: its error's code, or what it gives."""
    found: list[object] = []
    for act in (
        lambda: store.size_of(where),
        lambda: store.read(where),
        lambda: store.write(where, b"new", "token"),
        lambda: store.remove(where),
        lambda: store.folders(where),
        lambda: store.remove_folder(where),
    ):
        try:
            found.append(act())
        except StoreError as error:
            found.append(error.fault)
    return found


@pytest.mark.parametrize("link", ["file", "folder", "dangling", "over-another"])
def test_a_link_that_leads_out_of_the_place_is_not_followed(site: tuple[Path, Path, Places], link: str) -> None:
    inside, outside, places = site
    target = {"file": "secret", "folder": "", "dangling": "new", "over-another": ""}[link]
    (inside / "link").symlink_to(outside / target)
    name = {"file": "link", "folder": "link/secret", "dangling": "link", "over-another": "second/secret"}[link]
    if link == "over-another":
        (inside / "second").symlink_to("link")
    assert everything(places.locate(f"{inside}/{name}")) == [StoreFault.REFUSED] * 6
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_link_that_stays_inside_is_followed(site: tuple[Path, Path, Places]) -> None:
    inside, _, places = site
    (inside / "now").symlink_to("deep")
    store.write(places.locate(f"{inside}/now/x"), b"x", "token")
    assert (inside / "deep" / "x").read_bytes() == b"x"
    assert store.read(places.locate(f"{inside}/now/x")) == b"x"


def test_a_place_may_be_reached_by_a_link(site: tuple[Path, Path, Places], tmp_path: Path) -> None:
    inside, _, _ = site
    (tmp_path / "reached").symlink_to(inside)
    places = places_of((str(tmp_path / "reached"),))
    assert store.read(places.locate(f"{tmp_path}/reached/file")) == b"file"


def test_a_link_that_is_put_there_after_the_look_is_refused(
    site: tuple[Path, Path, Places], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside, places = site
    (inside / "late").symlink_to(outside)
    (inside / "name").symlink_to(outside / "secret")
    # As it was when the real path was looked up: no link.
    monkeypatch.setattr(os.path, "realpath", str)
    for name in ("late/secret", "name"):
        where = places.locate(f"{inside}/{name}")
        for act in (lambda: store.read(where), lambda: local_files.read(where, 10)):  # noqa: B023 - called at once
            with pytest.raises((StoreError, OSError)):
                act()
    store.write(places.locate(f"{inside}/name"), b"new", "token")
    assert (outside / "secret").read_bytes() == b"secret", "the link was replaced and not followed"
    with pytest.raises(StoreError):
        store.write(places.locate(f"{inside}/late/secret"), b"new", "token")
    # A temporary name that somebody took is not written through either.
    (inside / "other.token.partial").symlink_to(outside / "secret")
    store.write(places.locate(f"{inside}/other"), b"new", "token")
    assert (outside / "secret").read_bytes() == b"secret"
    assert (inside / "other").read_bytes() == b"new"


def test_a_pipe_in_the_store_is_no_file_and_nobody_waits_for_it(site: tuple[Path, Path, Places]) -> None:
    inside, _, places = site
    os.mkfifo(inside / "pipe")
    where = places.locate(f"{inside}/pipe")
    assert store.size_of(where) is None
    with pytest.raises(StoreError, match="could not be read"):
        store.read(where)


def test_what_an_operator_names_may_lie_anywhere_and_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"model")
    (tmp_path / "link").symlink_to("model")
    assert store.read(as_told(str(tmp_path / "link"))) == b"model"
    for hostile in ("reference://x::data:,", "ftp://host/x", "simplecache::s3://b/x", "s3://b/x?versionId=1"):
        with pytest.raises(StoreError, match="is refused"):
            as_told(hostile)


def test_what_a_driver_says_reaches_neither_error_nor_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fsspec

    class Driver:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("told by the environment: hunter2")

    monkeypatch.setattr(fsspec, "filesystem", lambda scheme: Driver())
    with caplog.at_level(logging.INFO):
        for act in (store.size_of, store.read, store.remove, store.folders, store.remove_folder):
            with pytest.raises(StoreError, match=r"its driver failed \(RuntimeError\).*\(store-failed\)") as failed:
                act(PLACES.locate("s3://bucket/folder/x"))
            assert failed.value.__cause__ is None
            assert failed.value.__suppress_context__
            logging.getLogger("headrace").error("it failed", exc_info=failed.value)
    assert "hunter2" not in caplog.text


def test_only_the_command_line_opens_what_it_is_told() -> None:
    # A `str` given to load and save is the operator's own word; what a record says has to be located first.
    told = {"commands", "registry/versions.py", "model/artifact.py", "learning/distributed/comparison.py"}
    found = []
    for file in sorted((SERVICES / "headrace").rglob("*.py")):
        name = str(file.relative_to(SERVICES / "headrace"))
        if any(name.startswith(one) for one in told):
            continue
        for node in ast.walk(parsed(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "as_told":
                found.append(f"{name}: as_told")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"load", "save"}:
                where = node.args[0 if node.func.id == "load" else -1]
                located = isinstance(where, ast.Name) or (
                    isinstance(where, ast.Call)
                    and isinstance(where.func, ast.Attribute)
                    and where.func.attr == "locate"
                )
                if not located:
                    found.append(f"{name}: {ast.unparse(node)}")
    assert found == []
