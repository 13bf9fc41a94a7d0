"""`headrace` in which the demo takes a model that is there: `python trained_demo.py MODEL demo [OPTIONS]`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from headrace.__main__ import main
from headrace.demo import answering
from headrace.learning.data.files import Rows


async def take_model(rows: Rows, model: Path, *, environ: Mapping[str, str]) -> None:
    shutil.copyfile(TRAINED, model)


if __name__ == "__main__":
    TRAINED = sys.argv.pop(1)
    answering.train_model = take_model
    main()
