import shutil
import subprocess
import sys

import pytest

from headrace.kafka import static_membership
from headrace.kafka.static_membership import NoNumberError, machine, static_member
from headrace.security.private_folder import PrivateFolder

PLACE = {"host": "here", "machine": "abc", "cluster": "127.0.0.1:9092", "group": "headrace"}


def test_members_on_one_machine_have_ids_of_their_own(tmp_path):
    with (
        static_member(PrivateFolder(tmp_path), **PLACE) as first,
        static_member(PrivateFolder(tmp_path), **PLACE) as second,
    ):
        assert first != second


def test_a_member_that_comes_back_has_the_id_that_it_had(tmp_path):
    with static_member(PrivateFolder(tmp_path), **PLACE) as first, static_member(PrivateFolder(tmp_path), **PLACE):
        pass
    with static_member(PrivateFolder(tmp_path), **PLACE) as again:
        assert again == first


def test_a_killed_member_leaves_its_id_to_the_next(tmp_path):
    code = (
        "import sys, pathlib; from headrace.kafka.static_membership import static_member\n"
        "from headrace.security.private_folder import PrivateFolder\n"
        "with static_member(PrivateFolder(pathlib.Path(sys.argv[1])), host='here',"
        " machine='abc', cluster='127.0.0.1:9092', group='headrace') as m:\n"
        "    print(m, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline().strip()
        with static_member(PrivateFolder(tmp_path), **PLACE) as beside:
            assert beside != first
        process.kill()
        process.wait(10)
    with static_member(PrivateFolder(tmp_path), **PLACE) as again:
        assert again == first


def test_other_groups_and_clusters_count_for_themselves(tmp_path):
    with (
        static_member(PrivateFolder(tmp_path), **PLACE) as first,
        static_member(PrivateFolder(tmp_path), **(PLACE | {"group": "other"})) as second,
        static_member(PrivateFolder(tmp_path), **(PLACE | {"cluster": "elsewhere:9092"})) as third,
    ):
        assert [member.split("-")[2] for member in (first, second, third)] == ["0", "0", "0"]


def test_containers_of_one_host_name_with_folders_of_their_own_have_ids_of_their_own(tmp_path):
    with (
        static_member(PrivateFolder(tmp_path / "one"), **PLACE) as first,
        static_member(PrivateFolder(tmp_path / "two"), **PLACE) as second,
    ):
        assert first != second


def test_containers_that_were_copied_with_their_folder_have_ids_of_their_own(tmp_path):
    with static_member(PrivateFolder(tmp_path / "one"), **PLACE) as first:
        pass
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with static_member(PrivateFolder(tmp_path / "two"), **(PLACE | {"machine": "def"})) as second:
        assert first != second


def test_a_lock_file_that_is_empty_or_damaged_gets_a_new_draw_which_is_kept(tmp_path):
    with static_member(PrivateFolder(tmp_path), **PLACE) as first:
        pass
    for content in (b"", b"\xff" * 40):
        next(tmp_path.glob("*.lock")).write_bytes(content)
        with static_member(PrivateFolder(tmp_path), **PLACE) as anew:
            assert anew != first
        with static_member(PrivateFolder(tmp_path), **PLACE) as again:
            assert again == anew


MOUNTS = "36 35 98:0 / / rw - ext4 /dev/sda1 rw\n512 36 98:0 {} /etc/hostname rw,relatime - ext4 /dev/sda1 rw\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("etc/machine-id", "another\n"),
        ("proc/sys/kernel/random/boot_id", "another\n"),
        ("proc/self/mountinfo", MOUNTS.format("/var/lib/docker/containers/another/hostname")),
    ],
)
def test_machines_that_differ_in_anything_that_the_system_says_are_told_apart(tmp_path, name, content):
    for file, known in (
        ("etc/machine-id", "m\n"),
        ("proc/sys/kernel/random/boot_id", "b\n"),
        ("proc/self/mountinfo", MOUNTS.format("/var/lib/docker/containers/one/hostname")),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(known)
    one = machine(tmp_path)
    assert machine(tmp_path) == one
    (tmp_path / name).write_text(content)
    assert machine(tmp_path) != one


def test_a_system_that_says_nothing_of_itself_is_some_machine(tmp_path):
    assert machine(tmp_path)


def test_running_out_of_numbers_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(static_membership, "MOST_MEMBERS", 1)
    one_more = static_member(PrivateFolder(tmp_path), **PLACE)
    with static_member(PrivateFolder(tmp_path), **PLACE), pytest.raises(NoNumberError, match="static_members"):
        one_more.__enter__()
