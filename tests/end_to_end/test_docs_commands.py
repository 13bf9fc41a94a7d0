"""Every command line of the README and of docs/: parsed by the real command line, and run where that takes seconds."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
from typer.testing import CliRunner

from headrace import cli
from headrace.client.labels import text_ids
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing
from headrace.kafka.settings import KafkaSettings
from headrace.model.artifact import About, assemble, save
from headrace.model.quantizing import quantize
from headrace_load import cli as load_cli
from headrace_load.processes import slowness
from tests.support.networks import random_network
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/how-to").glob("*.md"))]
LIMIT_S = 60
ELSEWHERE = {
    "curl": "tests/contract/gateway/test_page_calls.py",
    "helm": "tests/unit/deploy/test_chart.py",
}
"""Programs whose lines another test runs."""
PROGRAMS = ("headrace", "headrace-load", "make", "pip", "python", "python3", "pytest", *ELSEWHERE)
TEXT = "What is the capital of Peru ?"

RUN = (
    "headrace topics apply",
    "headrace topics describe",
    "headrace topics acl",
    "headrace config show",
    "headrace config reference",
    "headrace labels publish",
    "headrace labels list",
    "headrace labels export",
    "headrace labels erase",
    "headrace models keygen",
    "headrace models publish",
    "headrace models list",
    "headrace models show",
    "headrace models diff",
    "headrace models promote",
    "headrace models rollback",
    "headrace models pin",
    "headrace models unpin",
    "headrace models prune",
    "headrace evaluate",
    "headrace predict",
    "headrace bench-backend",
    "headrace classify",
    "headrace topics claim",
    "headrace publish",
    "headrace tail",
    "headrace dead-letters keygen",
    "headrace dead-letters list",
    "headrace dead-letters show",
    "headrace dead-letters replay",
)
"""In this order; a worker answers from the first classify on."""

NOT_RUN = {
    "headrace labels suspects": "it trains for a while; test_labels_suspects.py runs it",
    "headrace labels suggest": "it needs answers; test_labels_suggest.py runs it",
    **{
        f"headrace labels {name}": "it needs labels of these names; test_label_rules.py runs it"
        for name in ("rename", "merge", "retire", "rules")
    },
    "headrace broker": "it runs until it is stopped; the test's own broker is one",
    "headrace labeller": "it runs until it is stopped; test_labeller.py runs it",
    "headrace models certify": "it needs hundreds of labels by people; test_models_certify.py runs it",
    "headrace gateway": "it runs until it is stopped; test_up.py runs it",
    "headrace up": "it runs until it is stopped; test_up.py runs it",
    **{f"headrace keys {name}": "test_keys.py runs it" for name in ("add", "list", "revoke")},
    "headrace status": "it may watch for ever; test_status.py and test_findings.py run it",
    "headrace doctor": "it ends with 1 on one broker; test_doctor.py runs it",
    "headrace usage": "test_keys.py runs it",
    "headrace demo": "it takes a minute; test_demo.py runs it",
    "headrace teach": "it needs a model's address, or takes a minute; test_teach_command.py runs it",
    "headrace train": "it takes a minute; test_client_commands.py and test_demo.py train",
    "headrace trainer": "it trains for a minute; test_trainer.py runs it",
    "headrace worker": "it runs until it is stopped; one answers in this test, and test_worker.py runs more",
    "headrace models train": "it needs a trainer; test_trainer.py orders a training",
    "headrace models reproduce": "it trains for a minute; test_learning.py runs it",
    "headrace models compare": "it needs the answers of two groups; test_models_commands.py runs it",
    "headrace topics delete": "it asks on a terminal; test_deleting.py runs it",
    "headrace dead-letters purge": "it asks on a terminal; test_deleting.py runs it",
    "headrace-load": "a run takes minutes; test_load_commands.py and test_load_run.py run it",
}
ENDS_BY_CTRL_C = {"headrace tail": ["--count", "1"]}


def command_lines(page: Path) -> Iterator[str]:
    """The shell lines of a page's code blocks, fenced or indented, without prompt, comment and what puts them aside."""
    fenced, held = False, ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    ") or held:
            said = held + line.strip().removeprefix("$ ")
            if said.endswith("\\"):
                held = said[:-1]
                continue
            held = ""
            said = re.sub(r"\s+#\s.*$", "", said).removesuffix(" &").removeprefix(".venv/bin/")
            if said.partition(" ")[0] in PROGRAMS and not said.startswith("python3 -m venv"):
                yield said


LINES = sorted({(page.name, line) for page in PAGES for line in command_lines(page)})


def parsed(line: str) -> str:
    """The command that ``line`` names, such as "headrace models list". Raises what the program does."""
    name, *arguments = shlex.split(line)
    app = {"headrace": cli.app, "headrace-load": load_cli.app}[name]
    context = typer.main.get_command(app).make_context(name, [one for one in arguments if one != "..."])
    path = name
    while hasattr(context.command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        below, command, rest = context.command.resolve_command(context, rest)
        assert command is not None, line
        path = f"{path} {below}"
        context = command.make_context(below, rest, parent=context)
    return path


def test_the_pages_have_command_lines() -> None:
    assert len(LINES) > 50


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_line_of_the_docs_is_one(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = shlex.split(line)
    if program.startswith("headrace"):
        monkeypatch.chdir(tmp_path)
        Path("load").symlink_to(ROOT / "load")
        for one in arguments:
            # Some options take only a file that is there, and the page's reader brings it.
            if re.fullmatch(r"[A-Z]|.*\.(toml|jsonl)", one) and not Path(one).exists():
                Path(one).parent.mkdir(parents=True, exist_ok=True)
                Path(one).touch()
        path = parsed(line)
        assert path in RUN or path in NOT_RUN or program in NOT_RUN, f"{page}: is {path} run, or why not?"
    elif program == "make":
        targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert arguments[0] in targets
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert arguments[0] == "install"
        assert set(re.findall(r"\w+", "".join(re.findall(r"\[(.*)\]", line)))) <= set(project["optional-dependencies"])
    elif program in ELSEWHERE:
        assert (ROOT / ELSEWHERE[program]).is_file()
    elif program == "pytest":
        assert all((ROOT / one).exists() for one in arguments if one.startswith("tests/"))
    elif arguments[0] == "-m":
        assert find_spec(arguments[1]) is not None
    else:
        assert (ROOT / arguments[0]).is_file()


class Story:
    """A folder with what the pages speak of, topics on the embedded broker, and the command line on both."""

    def __init__(self, bootstrap: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prefix = f"docs-{uuid.uuid4().hex[:8]}."
        self._cluster = AioKafkaCluster(KafkaSettings(bootstrap=bootstrap, idempotent=False))
        for name, value in {
            "KAFKA__BOOTSTRAP": bootstrap,
            "KAFKA__IDEMPOTENT": "false",
            "KAFKA__STATIC_MEMBERS": "false",
            "TOPICS__PREFIX": self.prefix,
            "TRAINER__STORE": str(folder),
            "ADMIN__PORT": "0",
        }.items():
            monkeypatch.setenv(f"HEADRACE_{name}", value)
        monkeypatch.chdir(folder)
        rows = [{"text": TEXT, "label": "LOC"}, {"text": "Who wrote Hamlet ?", "label": "HUM"}]
        Path("questions.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(rows))
        Path("texts.txt").write_text("Where is Lima?\n", encoding="utf-8")
        network = quantize(random_network(1))
        self.versions = []
        for minute, file in enumerate(("model.safetensors", "other.safetensors"), 1):
            artifact = assemble(network, About(created_at_ms=60_000 * minute))
            save(artifact, file)
            self.versions.append(artifact.version)
        self.letter = "0@0"

    def run(self, *arguments: str) -> str:
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, (arguments, result.output)
        return result.output

    def arguments(self, path: str, line: str) -> list[str]:
        """The arguments of a documented line, with this folder's names in the place of FILE and the like."""
        files = {"headrace models publish": "other.safetensors", "headrace labels export": "labels.jsonl"}
        names = {
            "FILE": files.get(path, "questions.jsonl"),
            "VERSION": self.versions[0],
            "A": self.versions[0],
            "B": self.versions[1],
            "ID": text_ids([TEXT])[0],
        }
        given = [names.get(one, one) for one in shlex.split(line)[1:] if one != "..."]
        given = [self.letter if re.fullmatch(r"\d+@\d+", one) else one for one in given]
        return [*given, *ENDS_BY_CTRL_C.get(path, ())]

    @contextmanager
    def worker(self) -> Iterator[None]:
        with Path("worker.log").open("wb") as log:
            command = (sys.executable, "-m", "headrace", "worker", "--model", "model.safetensors")
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(LIMIT_S * slowness())

    def answers(self) -> None:
        """Wait until the worker answers."""
        asyncio.run(until(lambda: "partition.resumed" in Path("worker.log").read_text(encoding="utf-8"), LIMIT_S))

    async def spoil(self) -> None:
        """Publish a request that can't be answered."""
        producer = self._cluster.producer()
        await producer.start()
        await producer.send_batch(f"{self.prefix}classify.requests", 0, [Outgoing(b"{}")])
        await producer.stop()


def test_the_docs_commands_run_as_they_stand(
    embedded_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(embedded_bootstrap, tmp_path, monkeypatch)
    lines: dict[str, list[str]] = {}
    for _, line in LINES:
        if line.startswith("headrace "):
            lines.setdefault(parsed(line), []).append(line)

    def run(path: str) -> Any:
        # One line may stand on several pages.
        for line in dict.fromkeys(lines.get(path, ())):
            story.run(*story.arguments(path, line))

    first = RUN.index("headrace models publish")
    answered = RUN.index("headrace classify")
    letters = RUN.index("headrace dead-letters list")
    run(RUN[0])
    # It starts while commands that need no answer run.
    with story.worker():
        for path in RUN[1:first]:
            run(path)
        story.run("models", "publish", "model.safetensors")
        story.run("models", "publish", "other.safetensors", "--alias", "challenger")
        for path in RUN[first:answered]:
            run(path)
        story.answers()
        asyncio.run(story.spoil())
        for path in RUN[answered:letters]:
            run(path)
        listed = story.run("dead-letters", "list", "--json").splitlines()
        story.letter = msgspec.json.decode(listed[0])["place"]
        for path in RUN[letters:]:
            run(path)
