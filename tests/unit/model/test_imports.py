"""A worker on the cpu backend never loads torch: a separate process opens one, answers, and lists its modules."""

import json
import subprocess
import sys
from pathlib import Path

from headrace.model.artifact import About, assemble, save
from headrace.model.quantizing import quantize
from tests.support.networks import random_network

PROGRAM = """
import json, sys
from headrace.model.artifact import load
from headrace.model.backends import open_backend
backend = open_backend("cpu", load(sys.argv[1]), threads=2)
backend.warm()
answers = backend.classify([b"the good film", b"not bad"], ranking=2)
print(json.dumps({"labels": answers.labels.tolist(), "modules": sorted(sys.modules)}))
"""


def test_the_cpu_backend_answers_without_torch(tmp_path: Path) -> None:
    path = str(tmp_path / "model")
    save(assemble(quantize(random_network(1)), About()), path)
    done = subprocess.run([sys.executable, "-c", PROGRAM, path], check=True, capture_output=True, timeout=120)
    told = json.loads(done.stdout)
    assert len(told["labels"]) == 2
    assert "numba" in told["modules"]
    assert not {"torch", "aiokafka", "pyarrow"} & set(told["modules"])
