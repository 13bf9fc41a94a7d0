import ast
import functools
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from headrace import cli
from headrace.commands.common import settings_from
from headrace.core.errors import UserError, one_of_all
from headrace.kafka.interface import BrokerUnavailableError, UnknownTopicError
from headrace.lazy_commands import Mounted, mount
from tests.support.sources import parsed

ROOT = Path(__file__).parents[3]
HEAVY = {"numpy", "numba", "torch", "aiokafka", "pyarrow", "prometheus_client", "uvloop", "opentelemetry"}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["headrace", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def unreachable() -> None:
    raise BrokerUnavailableError("No broker answers at 127.0.0.1:1.")


def without_topic() -> None:
    raise UnknownTopicError("There is no topic classify.requests.")


def refused() -> None:
    error = UserError("The log was cut.")
    error.exit_code = 3
    raise error


def both() -> None:
    raise one_of_all([UnknownTopicError("There is no topic a."), UserError("The disk is full.")])


def without_torch() -> None:
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


def without_cryptography() -> None:
    raise ModuleNotFoundError("No module named 'cryptography'", name="cryptography.exceptions")


def without_s3fs(command: str) -> None:
    raise ModuleNotFoundError(f"No module named 's3fs' for {command}", name="s3fs")


def without_ours() -> None:
    raise ModuleNotFoundError("No module named 'headrace.nothing'", name="headrace.nothing")


def client_id(ctx: typer.Context, name: str | None = None) -> None:
    loaded = settings_from(ctx, {"--name": ("kafka.client_id", name)})
    kafka = loaded.settings.kafka
    typer.echo(f"{kafka.client_id} {kafka.bootstrap} {loaded.origins['kafka.client_id']}")


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (
        both,
        unreachable,
        without_topic,
        refused,
        without_torch,
        without_cryptography,
        without_s3fs,
        without_ours,
        client_id,
    ):
        target = Mounted(f"{__name__}:{function.__name__}", "For a test.")
        monkeypatch.setitem(cli.COMMANDS, function.__name__, target)


def test_the_overview_names_every_command_and_imports_none() -> None:
    code = (
        "import sys\nfrom headrace.cli import main\nsys.argv = ['headrace', '--help']\n"
        "try: main()\nfinally: print('loaded', sorted(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    overview, _, loaded = shown.partition("loaded ")
    assert [f" {name} " in overview for name in cli.COMMANDS] == [not one.hidden for one in cli.COMMANDS.values()]
    modules = set(json.loads(loaded.replace("'", '"')))
    assert not HEAVY & modules
    assert not {mounted.target.partition(":")[0] for mounted in cli.COMMANDS.values()} & modules


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_is_there_and_explains_itself(name: str) -> None:
    assert mount(cli.COMMANDS, name).help


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_commands_module_imports_nothing_heavy(name: str) -> None:
    module = cli.COMMANDS[name].target.partition(":")[0]
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_a_wrong_setting_ends_with_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--set", "kafka.boostrap=x", "config", "show") == 2
    assert capsys.readouterr().err == (
        "headrace: kafka.boostrap (--set): no such setting. Did you mean kafka.bootstrap?\n"
    )


def test_an_unknown_command_ends_with_2_and_the_nearest_known_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "trian") == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err
    assert run(monkeypatch, "zebra") == 2


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("unreachable", 1, "headrace: No broker answers at 127.0.0.1:1.\nheadrace: Is Kafka running there?"),
        ("without_topic", 1, "`headrace topics apply` creates the topics."),
        ("refused", 3, "headrace: The log was cut.\n"),
        ("both", 1, "headrace: There is no topic a.\nheadrace: At the same time: The disk is full.\n"),
        ("without_torch", 1, "pip install 'headrace[train]'"),
        ("without_cryptography", 1, "This needs cryptography.exceptions, which is not installed."),
        ("without_cryptography", 1, "pip install 'headrace[worker]'"),
    ],
)
def test_what_fails_ends_with_its_code_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, code: int, said: str
) -> None:
    assert run(monkeypatch, command) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def brought_by(extra: str) -> set[str]:
    """The distributions that ``extra`` brings, with those of the extras that it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought: set[str] = set()
    for line in project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == "headrace":
            brought = brought.union(*map(brought_by, requirement.extras))
        else:
            brought.add(canonicalize_name(requirement.name))
    return brought


distributions_by_name = functools.cache(packages_distributions)  # it reads the lists of files of all that is installed


def import_names(distribution: str) -> list[str]:
    """What a distribution is imported by; of one that is not installed, its name."""
    found = [
        name
        for name, distributions in distributions_by_name().items()
        if distribution in map(canonicalize_name, distributions) and name.isidentifier() and not name.startswith("_")
    ]
    return found or [distribution.replace("-", "_")]


def users_extras() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [extra for extra in project["optional-dependencies"] if extra != "dev"]


@functools.cache
def imported_by_us() -> set[str]:
    """The top-level names of all that headrace and the load harness import, at the top of a file or inside it."""
    found: set[str] = set()
    for file in [*(ROOT / "services").rglob("*.py"), *(ROOT / "load" / "headrace_load").rglob("*.py")]:
        for node in ast.walk(parsed(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("extra", users_extras())
def test_each_package_of_each_extra_has_a_hint_that_brings_it(extra: str) -> None:
    ours = imported_by_us()
    for distribution in brought_by(extra):
        names = import_names(distribution)
        hinted = {name for name in names if name in cli.EXTRAS}
        assert hinted, f"{distribution} is imported as {names}, and none has a hint"
        assert ours.intersection(names) <= hinted, f"{distribution} has no hint for all that we import of it"
        assert all(distribution in brought_by(cli.EXTRAS[name]) for name in hinted)


@pytest.mark.parametrize("command", cli.WHOLE)
def test_a_command_that_needs_a_whole_extra_names_it_only_for_what_it_brings(command: str) -> None:
    parts = cli.WHOLE[command]
    assert all(brought_by(part) <= brought_by(command) for part in parts)
    assert {extra for extra in users_extras() if brought_by(extra) <= brought_by(command)} == parts


@pytest.mark.usefixtures("mounted")
def test_a_command_that_needs_a_whole_extra_still_names_another_where_that_one_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "without_s3fs", "train") == 1
    assert "pip install 'headrace[s3]'" in capsys.readouterr().err


@pytest.mark.usefixtures("mounted")
def test_a_module_of_ours_that_is_missing_is_a_fault_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["headrace", "without_ours"])
    with pytest.raises(ModuleNotFoundError):
        cli.main()


@pytest.mark.usefixtures("mounted")
def test_a_command_sees_the_file_the_environment_and_the_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("headrace.toml").write_text('[kafka]\nclient_id = "file"\n')
    run(monkeypatch, "client_id")
    assert capsys.readouterr().out == "file 127.0.0.1:9092 headrace.toml, line 2\n"
    monkeypatch.setenv("HEADRACE_KAFKA__CLIENT_ID", "environment")
    run(monkeypatch, "--bootstrap", "there:1", "client_id")
    assert capsys.readouterr().out == "environment there:1 environment variable HEADRACE_KAFKA__CLIENT_ID\n"
    run(monkeypatch, "client_id", "--name", "option")
    assert capsys.readouterr().out == "option 127.0.0.1:9092 --name\n"
    run(monkeypatch, "--set", "kafka.client_id=set", "client_id", "--name", "option")
    assert capsys.readouterr().out == "set 127.0.0.1:9092 --set\n"


def test_the_settings_can_be_read_by_a_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA__SASL_PASSWORD", "hunter2")
    assert run(monkeypatch, "--bootstrap", "there:1", "config", "show", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kafka.bootstrap"] == {"value": "there:1", "origin": "--bootstrap"}
    assert shown["kafka.sasl_password"]["value"] == "***"


def test_the_settings_table_masks_secrets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA__SASL_PASSWORD", "hunter2")
    assert run(monkeypatch, "config", "show") == 0
    shown = capsys.readouterr().out
    assert "hunter2" not in shown
    assert "kafka.sasl_password" in shown


@pytest.mark.parametrize("named", ["/nowhere/model.safetensors", "gone.safetensors"])
def test_a_worker_without_its_model_file_can_not_be_mended_by_a_restart(monkeypatch, capsys, tmp_path, named) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "--set", "admin.port=0", "--bootstrap", "127.0.0.1:1", "worker", "--model", named) == 2
    assert f"{named}: there is no such artifact" in capsys.readouterr().err


# Prints a text of many scripts as a command does.
SAYS = """
import sys
from headrace import cli
from headrace.commands.common import console, say

def app():
    say("gr\\xf6\\xdfe \\U0001f469 \\u1797")
    console().print("gr\\xf6\\xdfe \\xb7 \\U0001f469")

cli.app = app
cli.main()
"""


@pytest.mark.parametrize("environment", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}])
@pytest.mark.parametrize("redirected", ["", ">&-"])
def test_every_text_is_written_whatever_the_locale_and_into_a_closed_output(environment, redirected):
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, SAYS]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == ([] if redirected else ["größe 👩 \u1797", "größe · 👩"])
