"""`headrace`, one version of which fails on every text while a file is there: a model that breaks after it was opened.

$ python -m tests.support.breaking_worker VERSION FILE worker ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from headrace.cli import main
from headrace.model.backends.cpu import CpuBackend
from headrace.model.backends.interface import Answers


def break_version(version: str, while_there: Path) -> None:
    """Let the cpu backend of ``version`` raise while the file is there."""
    answer = CpuBackend.classify

    def classify(self: CpuBackend, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        if self.artifact.version == version and while_there.exists():
            raise FloatingPointError("told to fail on everything")
        return answer(self, texts, ranking)

    CpuBackend.classify = classify  # type: ignore[method-assign]


if __name__ == "__main__":
    _, version, file, *sys.argv[1:] = sys.argv
    break_version(version, Path(file))
    main()
