import logging
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from headrace.client import KafkaError
from headrace_load import cli
from headrace_load.commands.compare import check_killable
from headrace_load.commands.options import exit_code, folder_for, message_of
from headrace_load.contender import Contender, ContenderError, Program, WorkerProgram, read_contender
from headrace_load.result import Comparison, write
from headrace_load.runner import stand
from headrace_load.target import KafkaSettingsError, TargetError, TargetOptions, kafka_settings, open_target, prefixed
from tests.support.load_results import audit_of, result_of

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {"numpy", "scipy", "matplotlib", "aiokafka", "psutil", "uvloop"}
WORKLOAD = '[arrivals]\nkind = "poisson"\nrate = 10\n[texts]\nkind = "made"\n'
WORKER = 'name = "one"\n[worker]\nmodel = "model.safetensors"\n'


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["headrace-load", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.toml").write_text(WORKLOAD)
    (tmp_path / "c.toml").write_text(WORKER)
    return tmp_path


def test_the_overview_loads_nothing_heavy():
    code = "import sys\nfrom headrace_load import cli\ntry:\n    cli.app(['--help'])\nexcept SystemExit: pass\n"
    code += "print(','.join(sorted(m.partition('.')[0] for m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, loaded = done.stdout.splitlines()
    assert not HEAVY & set(loaded.split(","))
    assert all(any(name in line for line in shown) for name in cli.TABLE)


@pytest.mark.parametrize("name", cli.TABLE)
def test_every_command_explains_itself(name, monkeypatch, capsys):
    assert run(monkeypatch, name, "--help") == 0
    assert name in capsys.readouterr().out


def test_a_misspelt_command_is_guessed(monkeypatch, capsys):
    assert run(monkeypatch, "swep") == 2
    assert "sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "w.toml", "--broker", "embedded"), "give --contender FILE"),
        (("run", "w.toml", "--contender", "c.toml", "--set", "worker.max_batch=2"), "contender's file"),
        (("run", "w.toml", "--contender", "c.toml", "--set", "kafka.nope=2"), "kafka.nope: no such setting"),
        (("run", "w.toml", "--contender", "c.toml", "--broker", "embedded", "--bootstrap", "x:1"), "give one of them"),
        (("run", "c.toml", "--contender", "c.toml"), "c.toml: "),
        (("run", "w.toml", "--contender", "w.toml"), "w.toml: "),
        (("drain", "--contender", "c.toml", "--contender", "c.toml"), "two contenders are named 'one'"),
        (("drain", "--contender", "c.toml", "--kill"), "processes = 2 or more"),
        (("report", "w.toml"), "w.toml is no result"),
    ],
)
def test_what_cannot_be_used_is_said_in_words_and_ends_with_2(arguments, said, files, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "c.toml", "--workload", "w.toml"),
        ("sweep", "w.toml", "--p99", "50", "--low", "10", "--high", "5"),
        ("run", "missing.toml"),
    ],
)
def test_wrong_usage_ends_with_2(arguments, files, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_a_cluster_that_is_away_is_said_in_words_and_ends_with_1(files, monkeypatch, capsys):
    # Other tests configure logging to a stream that is closed by now.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert run(monkeypatch, "run", "w.toml", "--bootstrap", "127.0.0.1:1") == 1
    error = capsys.readouterr().err
    assert "127.0.0.1:1" in error
    assert "Traceback" not in error


def test_results_are_never_mixed(tmp_path):
    assert folder_for(tmp_path / "new", "x").is_dir()
    (tmp_path / "new" / "result.json").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        folder_for(tmp_path / "new", "x")


def test_a_report_is_made_again(tmp_path, monkeypatch, capsys):
    results = {"a": (result_of(), result_of(seed=2)), "b": (result_of(rate=4000), result_of(rate=4400))}
    for document, name in ((result_of(name="steady"), "result"), (Comparison(results=results, differences={}), "both")):
        write(document, tmp_path / f"{name}.json")
        assert run(monkeypatch, "report", str(tmp_path / f"{name}.json"), "--out", str(tmp_path / name)) == 0
        assert (tmp_path / name / "report.html").stat().st_size > 10_000
        assert list((tmp_path / name).glob("*.png"))
    assert "steady" in capsys.readouterr().out


async def test_a_contender_gets_topics_that_nobody_else_has(tmp_path):
    asked = TargetOptions(bootstrap="k:9092", prefix="team.", sets=("kafka.client_id=mine",))
    async with open_target(asked, {}, tmp_path) as first, open_target(asked, {}, tmp_path) as second:
        own = [found.own(run) for found in (first, second) for run in ("01", "02")]
        assert len({system.requests for system in own}) == 4
        assert all(system.requests.startswith("team.headrace-load-") for system in own)
        assert first.existing.requests == "team.classify.requests"
        assert own[0].kafka == {"client_id": "mine"}


async def test_the_environment_is_that_of_headrace_and_options_stand_above_it(tmp_path):
    environ = {
        "HEADRACE_KAFKA__BOOTSTRAP": "env:1",
        "HEADRACE_KAFKA__SASL_PASSWORD": "hush",
        "HEADRACE_TOPICS__REQUESTS": "asked",
        "HEADRACE_TOPICS__RESULTS": "old",
    }
    async with open_target(TargetOptions(sets=("topics.results=told",)), environ, tmp_path) as found:
        system = found.existing
    assert (system.bootstrap, system.requests, system.results) == ("env:1", "asked", "told")
    assert system.kafka_settings().sasl_password.reveal() == "hush"
    assert system.environment().items() >= {"HEADRACE_KAFKA__SASL_PASSWORD": "hush"}.items()


async def test_an_unknown_topic_is_named(tmp_path):
    with pytest.raises(TargetError, match=r"topics\.replies: no such setting"):
        async with open_target(TargetOptions(sets=("topics.replies=x",)), {}, tmp_path):
            pass


def test_a_wrong_kafka_setting_is_named_without_its_value():
    with pytest.raises(KafkaSettingsError, match=r"kafka\.idempotent: ") as raised:
        kafka_settings({"idempotent": "s3cret"})
    assert "s3cret" not in str(raised.value)
    with pytest.raises(KafkaSettingsError, match="sasl_username and sasl_password"):
        kafka_settings({"security_protocol": "SASL_SSL"})


def test_children_are_told_every_topic():
    told = prefixed("k:1", "p.").environment()
    names = (
        "REQUESTS",
        "RESULTS",
        "DEAD_LETTERS",
        "LABELS",
        "MODELS",
        "WORKERS",
        "MACHINE_LABELS",
        "REVIEWS",
        "TEACHING",
    )
    assert all(told[f"HEADRACE_TOPICS__{name}"].startswith("p.classify.") for name in names)


def test_only_members_of_a_parent_are_killed():
    worker = Contender(name="w", worker=WorkerProgram(model="m", processes=2))
    check_killable({"w": worker})
    with pytest.raises(ContenderError, match="processes = 2 or more"):
        check_killable({"w": worker, "p": Contender(name="p", program=Program(command=("x",)))})


def test_figures_stand_when_every_audit_is_kept_and_nothing_was_refused():
    fine = result_of()
    assert stand([fine])
    assert not stand([fine, result_of(refused="the producers were late")])
    assert not stand([fine, msgspec.structs.replace(fine, audit=audit_of(10, lost=1))])


@pytest.mark.parametrize("file", sorted((ROOT / "load" / "contenders").glob("*.toml")), ids=lambda file: file.stem)
def test_the_contenders_that_are_shipped_can_be_read(file):
    assert read_contender(file).worker.model == "model.safetensors"


def test_of_several_errors_all_are_told_and_the_highest_code_holds():
    several = ExceptionGroup(
        "lanes",
        [OSError("full"), ExceptionGroup("more", [KafkaError("away"), TargetError("no broker")]), OSError("full")],
    )
    assert exit_code(several) == 2
    assert message_of(several) == "full\naway\nno broker"
    assert exit_code(ExceptionGroup("lanes", [OSError("full"), KeyError("a fault")])) is None


@pytest.mark.parametrize("command", [("record", "w"), ("record", "file/w"), ("report", "w.toml", "--out", "file/new")])
def test_a_place_for_what_is_made_is_looked_at_first(files, monkeypatch, capsys, command):
    (files / "file").touch()
    assert run(monkeypatch, *command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is there already: --force" in line or "file is no folder" in line
