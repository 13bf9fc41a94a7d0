import subprocess
import sys

import pytest

from headrace import membership
from headrace.membership import NoNumberError, static_member
from headrace.security.private_folder import PrivateFolder

PLACE = {"host": "here", "cluster": "127.0.0.1:9092", "group": "headrace"}


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
        "import sys, pathlib; from headrace.membership import static_member\n"
        "from headrace.security.private_folder import PrivateFolder\n"
        "with static_member(PrivateFolder(pathlib.Path(sys.argv[1])), host='here',"
        " cluster='127.0.0.1:9092', group='headrace') as m:\n"
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
        assert first == second == third


def test_running_out_of_numbers_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(membership, "MOST_MEMBERS", 1)
    one_more = static_member(PrivateFolder(tmp_path), **PLACE)
    with static_member(PrivateFolder(tmp_path), **PLACE), pytest.raises(NoNumberError, match="static_members"):
        one_more.__enter__()
