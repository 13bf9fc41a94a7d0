import pytest

from headrace_load.contender import Contender, Program, WorkerProgram, masked
from headrace_load.measure.evaluation import evaluate
from headrace_load.result import read, write
from tests.unit.load.test_measure_judging import WORKLOAD, a_run


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "kafka.sasl_password", "API_KEY", "AWS_SECRET_ACCESS_KEY", "GH_TOKEN", "AUTH", "key", "PGPWD"],
)
def test_what_looks_like_a_secret_is_masked_by_its_name(name: str) -> None:
    program = Contender(name="p", program=Program(command=("x",), environment={name: "hunter2", "THREADS": "2"}))
    worker = Contender(name="w", worker=WorkerProgram(model="m", settings={name: "hunter2", "worker.max_batch": "2"}))
    assert masked(program).program.environment == {name: "***", "THREADS": "2"}
    assert masked(worker).worker.settings == {name: "***", "worker.max_batch": "2"}
    # What the program itself is started with stays.
    assert program.program.environment[name] == "hunter2"


def test_an_address_with_a_password_is_masked_whatever_its_name() -> None:
    environment = {"STORE": "redis://me:hunter2@host/0", "BROKER": "kafka://host:9092", "KEYBOARD": "de", "MONKEY": "a"}
    shown = masked(Contender(name="p", program=Program(command=("x",), environment=environment))).program.environment
    assert shown["STORE"] == "***"
    assert (shown["BROKER"], shown["MONKEY"]) == ("kafka://host:9092", "a")


def test_a_secret_of_the_program_is_not_in_the_file_of_a_result(tmp_path) -> None:
    program = Contender(name="p", program=Program(command=("x",), environment={"DB_PASSWORD": "hunter2"}))
    write(evaluate(WORKLOAD, program, "p", a_run()), tmp_path / "result.json")
    assert "hunter2" not in (tmp_path / "result.json").read_text()
    assert read(tmp_path / "result.json").contender.program.environment == {"DB_PASSWORD": "***"}
