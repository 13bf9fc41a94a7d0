"""Look up the packages of a lock among the known vulnerabilities, by pip-audit, and never take silence for an answer.

    python deploy/containers/audit.py deploy/containers/requirements.lock

pip-audit calls a set clean, and ends with 0, when its service knows none of the packages, as behind a mirror that
serves packages and no advisories. Here a package counts as looked up only when the service answered for it. Ends with 0
when all were looked up and none is known to be vulnerable, 1 when one is, 3 when any could not be looked up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

CLEAN, VULNERABLE, NOT_LOOKED_UP = 0, 1, 3
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


class Pin(NamedTuple):
    """One package of a lock; the name is normalized as package indexes do (PEP 503)."""

    name: str
    version: str


class Audit(NamedTuple):
    """What is known of a lock: lines about the vulnerable, and the pins that nothing is known of."""

    vulnerable: list[str]
    unknown: list[Pin]
    looked_up: int

    @property
    def code(self) -> int:
        """The exit code. A vulnerability that was found counts even where other packages could not be looked up."""
        if self.vulnerable:
            return VULNERABLE
        return NOT_LOOKED_UP if self.unknown or not self.looked_up else CLEAN


def normalized(name: str) -> str:
    """``name`` as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> list[Pin]:
    """The packages of a requirements file, one version each."""
    return [Pin(normalized(name), version) for name, version in _PIN.findall(lock)]


def judged(report: str, locked: Iterable[Pin]) -> Audit:
    """Hold pip-audit's JSON ``report`` against what is ``locked``. Without a report nothing was looked up."""
    answers = json.loads(report)["dependencies"] if report.strip() else []
    found = {Pin(normalized(one["name"]), one["version"]): one["vulns"] for one in answers if "vulns" in one}
    locked = list(locked)
    vulnerable = [
        f"{pin.name} {pin.version}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'no version yet'}"
        for pin in locked
        for one in found.get(pin, [])
    ]
    unknown = [pin for pin in locked if pin not in found]
    return Audit(vulnerable, unknown, len(locked) - len(unknown))


def said(audit: Audit, complaint: str) -> str:
    """What a person reads; ``complaint`` is the last line of a pip-audit that ended without a report."""
    lines = [f"VULNERABLE {line}" for line in audit.vulnerable]
    if audit.unknown or not audit.looked_up:
        total = audit.looked_up + len(audit.unknown)
        lines.append(
            f"NOT LOOKED UP: {len(audit.unknown)} of {total} packages, so this says nothing about them. "
            "The service of advisories could not be reached or does not know them; try where it can be reached."
        )
        lines += [f"  {pin.name} {pin.version}" for pin in audit.unknown]
        if complaint:
            lines.append(f"  pip-audit said: {complaint}")
    elif not audit.vulnerable:
        lines.append(f"clean: {audit.looked_up} packages looked up, none known to be vulnerable")
    return "\n".join(lines) + "\n"


def main(lock: Path) -> int:
    """Audit ``lock``, print what was found and return the exit code."""
    asked = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--require-hashes"]
    done = subprocess.run(  # noqa: S603 - this Python and the file that was named
        [*asked, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, check=False
    )
    audit = judged(done.stdout, pins(lock.read_text(encoding="utf-8")))
    complaint = "" if done.stdout.strip() else (done.stderr.strip().splitlines() or [""])[-1]
    sys.stdout.write(said(audit, complaint))
    return audit.code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
