"""An audit calls a lock clean only when every package of it was looked up."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.containers.audit import CLEAN, NOT_LOOKED_UP, VULNERABLE, judged, pins, said

LOCK = "numpy==2.4.6 \\\n    --hash=sha256:00\n    # via numba\nTyping_Extensions==4.16.0 \\\n    --hash=sha256:11\n"
KNOWN = {"name": "numpy", "version": "2.4.6", "vulns": []}
ALSO_KNOWN = {"name": "typing-extensions", "version": "4.16.0", "vulns": []}
HOLED = {"name": "numpy", "version": "2.4.6", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.4.7"]}]}
# As pip-audit 2.10 writes it where its service does not know the package; it ends with 0 and calls the set clean.
SKIPPED = {"name": "typing-extensions", "skip_reason": "Dependency not found and could not be audited"}


def report(*answers: dict[str, object]) -> str:
    return json.dumps({"dependencies": answers, "fixes": []})


def test_a_lock_is_read_package_by_package() -> None:
    assert pins(LOCK) == [("numpy", "2.4.6"), ("typing-extensions", "4.16.0")]


def test_all_looked_up_and_nothing_known_is_clean() -> None:
    audit = judged(report(KNOWN, ALSO_KNOWN), pins(LOCK))
    assert audit.code == CLEAN
    assert said(audit, "") == "clean: 2 packages looked up, none known to be vulnerable\n"


def test_a_package_that_the_service_skipped_is_not_clean() -> None:
    audit = judged(report(KNOWN, SKIPPED), pins(LOCK))
    assert audit.code == NOT_LOOKED_UP
    assert "NOT LOOKED UP: 1 of 2" in said(audit, "")
    assert "typing-extensions 4.16.0" in said(audit, "")


def test_an_answer_about_another_version_or_none_at_all_is_not_clean() -> None:
    assert judged(report(KNOWN | {"version": "2.4.5"}, ALSO_KNOWN), pins(LOCK)).code == NOT_LOOKED_UP
    assert judged(report(KNOWN), pins(LOCK)).code == NOT_LOOKED_UP
    assert judged(report(), pins("")).code == NOT_LOOKED_UP


def test_a_service_that_is_away_is_said_in_its_words() -> None:
    audit = judged("", pins(LOCK))
    assert audit.code == NOT_LOOKED_UP
    assert "pip-audit said: no route to host" in said(audit, "no route to host")


def test_a_vulnerability_counts_even_where_others_were_not_looked_up() -> None:
    audit = judged(report(HOLED, SKIPPED), pins(LOCK))
    assert audit.code == VULNERABLE
    assert said(audit, "").startswith("VULNERABLE numpy 2.4.6: PYSEC-1, mended in 2.4.7\nNOT LOOKED UP: 1 of 2")


def test_the_images_lock_is_read_whole() -> None:
    text = (Path(__file__).parents[3] / "deploy" / "containers" / "requirements.lock").read_text(encoding="utf-8")
    assert len(pins(text)) == text.count("==") > 30
