"""`headrace-load record`: a workload from a live topic. `headrace-load report`: the report of a result, made again."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from headrace.files.output import check_output, check_output_folder
from headrace_load.commands import options
from headrace_load.result import read
from headrace_load.runner import report as write_all
from headrace_load.target import TargetOptions, open_target
from headrace_load.workload.recording import record as follow


@options.takes_target(options.EXISTING)
def record(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="OUT.toml and OUT.jsonl are written.")],
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to follow the topic.")] = 60.0,
    most: Annotated[int, typer.Option(min=1, help="Requests to record at most.")] = 1_000_000,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a recording that is there.")] = False,
    keep_texts: Annotated[
        bool, typer.Option("--keep-texts", help="Keep the texts themselves; by default only their lengths.")
    ] = False,
    target: TargetOptions,
) -> None:
    """Follow the requests topic and make a workload of its records: times, lengths, keys as hashes, deadlines, rubbish.

    The topic is that of --prefix, or --set topics.requests=NAME.
    """
    for written in (out.with_suffix(".jsonl"), out.with_suffix(".toml")):
        check_output(written, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)

    async def work() -> bool:
        async with open_target(target, os.environ, out.parent) as found:
            system = found.existing
        async with system.consumer() as consumer:
            written = await follow(
                consumer,
                system.requests,
                out,
                seconds=seconds,
                most=most,
                keep_texts=keep_texts,
                salt=secrets.token_bytes(32),
            )
        print(f"`headrace-load run {written}` plays what was recorded.")
        return True

    options.run_to_exit(work())


def report(
    result: Annotated[Path, typer.Argument(metavar="RESULT", **options.FILE, help="A result.json or comparison.json.")],
    *,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to. By default beside the result.")] = None,
) -> None:
    """Make the page and the pictures of a result again, and print its tables."""
    folder = out or result.parent
    check_output_folder(folder)
    document = read(result)
    folder.mkdir(parents=True, exist_ok=True)
    write_all(document, folder, options.console())
