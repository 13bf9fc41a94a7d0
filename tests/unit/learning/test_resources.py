"""A training says what memory it takes, is refused above what there is, and bounds labels and their names."""

import json
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from headrace.files import DatasetError
from headrace.learning.data.features import MOST_CELLS, prepare
from headrace.learning.data.files import Rows
from headrace.learning.data.split import Splits
from headrace.learning.data.validation import MOST_NAME_BYTES, check_labels
from headrace.learning.distributed.collectives import Alone
from headrace.learning.distributed.job import FileSource, Job
from headrace.learning.distributed.rank import run
from headrace.learning.fit.hyperparameters import ConvolutionRecipe, Recipe, WideRecipe
from headrace.learning.fit.wide import FITTED_WHOLE, HISTORY, fit_wide
from headrace.learning.resources import Sizes, free_memory, training_bytes
from headrace.model.signing import Seals
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.store import TrainingStore
from headrace.trainer.training_run import job_of
from headrace_schemas.records import Training, TrainingState
from tests.support.places import ANYWHERE

GB = 10**9


def rows_of(labels: int, each: int) -> Rows:
    randomness = random.Random(3)
    texts = [
        f"word{label} word{label + 1} " + " ".join(f"filler{randomness.randrange(50)}" for _ in range(4))
        for label in range(labels)
        for _ in range(each)
    ]
    return Rows(tuple(texts), tuple(f"label {label:05}" for label in range(labels) for _ in range(each)))


def sizes_of(labels: int, **others: int) -> Sizes:
    given = {"columns": min(90_002, MOST_CELLS // labels), "words": 30_000, "texts": 30_000, "features": 10**6}
    return Sizes(labels=labels, valid=3_000, **{**given, **others})


def test_the_estimate_holds_what_a_fit_of_few_classes_allocates(monkeypatch):
    kept: list[int] = []
    step = torch.optim.LBFGS.step

    def measured(self, closure):
        loss = step(self, closure)
        state = self.state[self._params[0]]
        tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
        tensors += [one for name in ("old_dirs", "old_stps") for one in state[name]]
        kept.append(sum(one.nbytes for one in tensors) + self._params[0].nbytes)
        return loss

    monkeypatch.setattr(torch.optim.LBFGS, "step", measured)
    rows, recipe = rows_of(20, 10), Recipe()
    material = prepare(rows, tuple(sorted(set(rows.labels))), recipe, Alone())
    columns = material.vocabulary.columns
    found = fit_wide(material.features(), material.targets, columns, 20, recipe.wide, Alone())
    alone = training_bytes(
        Sizes(columns=columns, words=0, labels=20, texts=0, features=len(material.features().columns), valid=0), recipe
    )

    # What is left when it has ended: 8 pairs of vectors and some more, of each weight one number.
    assert kept[0] > 2 * HISTORY * found.weights.nbytes
    assert kept[0] < alone < 2.5 * kept[0]


def test_the_estimate_of_many_classes_is_that_of_tables_bounded_whatever_their_number():
    tables = [training_bytes(sizes_of(labels, texts=0, features=0), Recipe()) for labels in (1_000, 3_000, 10_000)]

    assert max(tables) - min(tables) < 10_000 * 3_000 * 4 * 6
    assert training_bytes(sizes_of(3_000), Recipe()) < 2.2 * GB
    # Logits in pieces: more texts take no more of them.
    more = [training_bytes(sizes_of(3_000, texts=texts), Recipe()) for texts in (30_000, 3_000_000)]
    assert more[0] == more[1]


def test_networks_that_are_fitted_side_by_side_take_their_words_each():
    one, five = (training_bytes(sizes_of(20, networks=networks), Recipe()) for networks in (1, 5))
    assert five - one == 4 * (training_bytes(sizes_of(20), Recipe()) - training_bytes(sizes_of(20, words=0), Recipe()))


def test_ordinary_data_keeps_every_word_and_pair_of_the_recipe():
    recipe = Recipe()

    assert recipe.max_words + recipe.max_bigrams + 2 < MOST_CELLS // 2 // FITTED_WHOLE


def test_more_labels_than_the_table_has_room_for_keep_the_most_frequent_words(monkeypatch):
    rows = rows_of(30, 10)
    labels = tuple(sorted(set(rows.labels)))
    whole = prepare(rows, labels, Recipe(), Alone()).vocabulary
    monkeypatch.setattr("headrace.learning.data.features.MOST_CELLS", 30 * (len(whole.words) + 2 + 7))
    less = prepare(rows, labels, Recipe(), Alone()).vocabulary
    monkeypatch.setattr("headrace.learning.data.features.MOST_CELLS", 30 * 12)
    least = prepare(rows, labels, Recipe(), Alone()).vocabulary

    assert less.words.tolist() == whole.words.tolist()
    assert less.bigrams.tolist() == whole.bigrams[:7].tolist()
    assert least.words.tolist() == whole.words[:10].tolist()
    assert len(least.bigrams) == 0


def test_a_training_that_would_take_more_memory_than_there_is_is_refused_in_words(tmp_path: Path):
    rows = rows_of(30, 10)
    data = tmp_path / "rows.jsonl"
    pairs = zip(rows.texts, rows.labels, strict=True)
    data.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs))
    recipe = Recipe(convolution=ConvolutionRecipe(epochs=1))
    job = Job(
        id="train", source=FileSource(data=str(data)), recipe=recipe, checkpoints=str(tmp_path), out=str(tmp_path)
    )
    told: list[dict] = []

    def refused(job: Job) -> str:
        told.clear()
        with pytest.raises(DatasetError) as raised:
            run(
                job,
                None,
                Alone(),
                lambda name, **fields: told.append({"event": name, **fields}),
                trusted=(),
                splits=Splits(),
                places=ANYWHERE,
                resumes=False,
                memory=lambda: 10**6,
            )
        return str(raised.value)

    assert "30 labels" in (message := refused(job))
    assert "0.0 GB are free here" in message
    assert told[-1]["event"] == "training.memory"
    assert told[-1]["bytes"] > told[-1]["free_bytes"] == 10**6
    assert "trainer.max_labels allows 20" in refused(msgspec.structs.replace(job, max_labels=20))
    assert not told


def test_a_trainers_job_bounds_the_labels_by_its_settings():
    training = Training(name="default", id="1", state=TrainingState.RUNNING, reason="", begun_at_ms=1, offsets=())
    job = job_of(
        training,
        topic="labels",
        champion=None,
        baseline=None,
        settings=TrainerSettings(max_labels=5),
        store=TrainingStore("memory://limits", "default", ANYWHERE, Seals()),
        holdout=None,
    )

    assert job.max_labels == 5


def test_more_labels_than_are_allowed_are_refused_and_so_are_names_that_no_record_holds():
    labels = [f"label {place}" for place in range(21)]
    check_labels(labels, 21)
    check_labels(labels, None)

    with pytest.raises(DatasetError, match=r"21 labels, and trainer\.max_labels allows 20"):
        check_labels(labels, 20)
    with pytest.raises(DatasetError, match="the names of the 2 labels have 524,290 bytes together"):
        check_labels(["é" * (MOST_NAME_BYTES // 2), "ab"], None)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        pytest.param({}, 8 * GB, id="no control group"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/box/inner\n",
                "sys/fs/cgroup/box/memory.max": f"{3 * GB}\n",
                "sys/fs/cgroup/box/memory.current": f"{2 * GB}\n",
                "sys/fs/cgroup/box/memory.stat": f"anon 1\ninactive_file {GB // 2}\n",
                "sys/fs/cgroup/box/inner/memory.max": "max\n",
            },
            3 * GB // 2,
            id="version 2, the limit of a group above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "9:cpu:/\n4:memory:/docker/0a1b\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GB}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB // 4}\n",
                "sys/fs/cgroup/memory/memory.stat": "inactive_file 5\ntotal_inactive_file 0\n",
            },
            3 * GB // 4,
            id="version 1, mounted without the host's path",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n",
                "sys/fs/cgroup/memory/memory.stat": "",
            },
            8 * GB,
            id="version 1 without a limit",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/../..\n",
                "sys/fs/cgroup/memory.max": "100\n",
                "sys/fs/cgroup/memory.current": "200\n",
                "sys/fs/cgroup/memory.stat": "",
            },
            0,
            id="above its limit already",
        ),
    ],
)
def test_free_is_what_the_machine_has_or_a_control_group_leaves(tmp_path: Path, files: dict[str, str], left: int):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    assert free_memory(tmp_path, lambda: 8 * GB) == left


def test_what_is_free_on_this_machine_is_a_number_of_bytes():
    assert free_memory() > 0


def test_of_many_classes_only_weights_of_features_that_a_class_has_leave_their_prior():
    rows = rows_of(FITTED_WHOLE + 1, 4)
    labels = tuple(sorted(set(rows.labels)))
    recipe = Recipe()
    material = prepare(rows, labels, recipe, Alone())
    features, columns = material.features(), material.vocabulary.columns
    weights, _ = fit_wide(features, material.targets, columns, len(labels), recipe.wide, Alone())
    held, _ = fit_wide(features, material.targets, columns, len(labels), WideRecipe(iterations=0), Alone())
    owners = material.targets[np.repeat(np.arange(len(material.targets)), np.diff(features.starts))]
    has = np.zeros(weights.shape, bool)
    has[features.columns, owners] = True

    assert torch.equal(weights[~has], held[~has])
    assert (weights[has] != held[has]).float().mean() > 0.9
