import os
import stat
from pathlib import Path

import pytest

from headrace.training.ranks.launch import _appended, _write


def test_the_files_of_a_training_are_their_owners_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        _write(tmp_path / "made" / "job.json", b"{}")
        with _appended(tmp_path / "made" / "job.log") as log:
            log.write(b"line\n")
    finally:
        os.umask(umask)
    assert [stat.S_IMODE((tmp_path / "made" / name).stat().st_mode) for name in ("job.json", "job.log")] == [0o600] * 2


def test_a_link_that_somebody_laid_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "job.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"job\.json"):
        _write(tmp_path / "job.json", b"{}")
    assert not (tmp_path / "elsewhere").exists()
