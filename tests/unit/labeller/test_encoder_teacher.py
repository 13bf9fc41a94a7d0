"""The teacher `encoder`: on the installed model with a few texts, and on a tiny one where weights are trained."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.labeller.teachers import encoder as module
from headrace.labeller.teachers.encoder import EncoderTeacher, Tune, fit_teacher, load_teacher, open_encoder
from headrace.labeller.teachers.interface import TeacherError
from headrace.learning.data.files import Rows
from headrace.learning.encoder import Encoder, EncoderError, batches_by_length, load_encoder
from tests.support.tiny_encoder import write_tiny_encoder

ABOUT = {
    "card": (
        "my card is lost",
        "the card was stolen",
        "where is my new card",
        "a card in the letter box",
        "block my card",
    ),
    "refund": ("give my money back", "a refund please", "where is the refund", "i want my payment back", "refund late"),
}
FEW = Rows(
    tuple(text for texts in ABOUT.values() for text in texts),
    tuple(label for label, texts in ABOUT.items() for _ in texts),
)
NONE = Rows((), ())


@pytest.fixture(scope="module")
def wheel() -> Encoder:
    return open_encoder(None)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_encoder(tmp_path / "tiny")


def tiny_teacher(folder: Path, tune: Tune = Tune.NEVER, seed: int = 0) -> EncoderTeacher:
    return fit_teacher(load_encoder(str(folder)), FEW, NONE, named=str(folder), tune=tune, seed=seed, threads=1)


def test_a_few_rows_teach_texts_that_were_never_seen(wheel: Encoder) -> None:
    told: list[tuple[str, int, int]] = []
    teacher = fit_teacher(wheel, FEW, NONE, threads=1, tell=lambda *one: told.append(one))
    found = asyncio.run(teacher.label(["i can not find my bank card", "please return what i paid"]))
    assert [teacher.labels[place] for place in found.scores.argmax(1)] == ["card", "refund"]
    assert not found.failures
    assert teacher.evidence.crossed
    assert teacher.evidence.learnt == len(FEW)
    assert ("embedding", len(FEW), len(FEW)) in told


def test_vectors_have_length_1_and_do_not_hang_on_what_stands_beside_them(wheel: Encoder) -> None:
    texts = ["short", "a text that is a good deal longer than the one before it", "", "\ud800 alone", "word " * 4000]
    together = wheel.embed(texts)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[:1], wheel.embed(texts[:1]), atol=1e-5)
    assert wheel.embed([]).shape == (0, wheel.dimensions)


@pytest.mark.parametrize("tune", [Tune.NEVER, Tune.ALWAYS])
def test_the_same_rows_and_seed_give_the_same_teacher(tiny: Path, tune: Tune) -> None:
    one, other = tiny_teacher(tiny, tune), tiny_teacher(tiny, tune)
    assert one.identity == other.identity
    assert one.tuned == (tune is Tune.ALWAYS)
    assert (one.score(FEW.texts) == other.score(FEW.texts)).all()


@pytest.mark.parametrize("tune", [Tune.NEVER, Tune.ALWAYS])
def test_a_saved_teacher_answers_as_before_under_the_same_version(tiny: Path, tmp_path: Path, tune: Tune) -> None:
    teacher = tiny_teacher(tiny, tune)
    teacher.save(tmp_path / "teacher.safetensors")
    loaded = load_teacher(tmp_path / "teacher.safetensors", threads=1)
    assert loaded.identity == teacher.identity
    assert loaded.labels == teacher.labels
    assert loaded.evidence == teacher.evidence
    assert (loaded.score(FEW.texts) == teacher.score(FEW.texts)).all()


def test_training_on_changes_the_version_and_leaves_torch_as_it_was(tiny: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    frozen, tuned = tiny_teacher(tiny), tiny_teacher(tiny, Tune.ALWAYS)
    assert frozen.identity.version != tuned.identity.version
    assert tuned.evidence.tuned is not None
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_a_fine_tuning_that_is_no_better_is_left_and_the_weights_are_put_back(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAST_TUNED", 1)
    monkeypatch.setattr(module, "_LEAST_TUNED_A_CLASS", 1)
    monkeypatch.setattr(module, "_GOOD_ENOUGH", 2.0)
    monkeypatch.setattr(module, "_better", lambda _ours, _theirs: False)
    left = tiny_teacher(tiny, Tune.AUTO)
    assert left.evidence.tuned is not None
    assert left.identity == tiny_teacher(tiny).identity


def test_weights_are_trained_by_themselves_only_with_enough_rows_of_each_label() -> None:
    assert module._worth_tuning(Tune.AUTO, 1540, 77, 0.9)
    assert not module._worth_tuning(Tune.AUTO, 1539, 77, 0.9)
    assert not module._worth_tuning(Tune.AUTO, 299, 2, 0.9)
    assert module._worth_tuning(Tune.ALWAYS, 10, 77, 0.9)


def test_with_enough_validation_rows_a_teacher_never_learns_from_them(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW", 2)
    valid = Rows(("the card is late", "the refund is late"), ("card", "refund"))
    other = Rows(("the card is late", "the refund is late"), ("refund", "card"))
    teachers = [fit_teacher(load_encoder(str(tiny)), FEW, rows, threads=1, tune=Tune.NEVER) for rows in (valid, other)]
    assert not teachers[0].evidence.crossed
    assert teachers[0].evidence.learnt == len(FEW)
    assert teachers[0].evidence.rows == 2
    # The strength that they chose may differ; what was learnt from is the same.
    assert {round(one.evidence.accuracy, 6) for one in teachers} <= {0.0, 0.5, 1.0}


def test_the_order_of_the_rows_does_not_decide_which_are_held_out_together() -> None:
    truth = np.array([0] * 5 + [1] * 5)
    backwards = Rows(FEW.texts[::-1], FEW.labels[::-1])

    def held(rows: Rows, numbers: np.ndarray) -> list[list[str]]:
        return [sorted(rows.texts[place] for place in held) for _, held in module._folds(rows, numbers, module.UNKEYED)]

    assert sorted(held(FEW, truth)) == sorted(held(backwards, truth[::-1]))
    assert all(len(one) == 2 for one in held(FEW, truth))


def test_rows_of_one_label_teach_nothing(tiny: Path) -> None:
    with pytest.raises(TeacherError, match="two labels"):
        fit_teacher(load_encoder(str(tiny)), Rows(("a", "b"), ("x", "x")), NONE)


def test_a_file_of_another_encoder_is_refused(tiny: Path, tmp_path: Path) -> None:
    tiny_teacher(tiny).save(tmp_path / "teacher")
    shutil.rmtree(tiny)
    write_tiny_encoder(tiny, seed=1)
    with pytest.raises(TeacherError, match="another model"):
        load_teacher(tmp_path / "teacher")


@pytest.mark.parametrize("harm", ["cut", "not-a-file", "foreign", "nan", "shape", "label-twice", "format"])
def test_a_broken_teacher_file_is_refused_in_words(tiny: Path, tmp_path: Path, harm: str) -> None:
    from safetensors.numpy import load, save

    file = tmp_path / "teacher"
    tiny_teacher(tiny).save(file)
    whole = file.read_bytes()
    tensors = {name: one.copy() for name, one in load(whole).items()}
    size = int.from_bytes(whole[:8], "little")
    told = json.loads(json.loads(whole[8 : 8 + size])["__metadata__"]["teacher"])
    match harm:
        case "cut":
            file.write_bytes(whole[:-10])
        case "not-a-file":
            file = tmp_path / "nowhere"
        case "foreign":
            file.write_bytes(save(tensors))
        case _:
            if harm == "nan":
                tensors["head.weight"][0, 0] = np.nan
            if harm == "shape":
                tensors["head.weight"] = tensors["head.weight"][:, :3].copy()
            if harm == "label-twice":
                told["labels"] = ["card", "card"]
            if harm == "format":
                told["format"] = "headrace-teacher/9"
            file.write_bytes(save(tensors, metadata={"teacher": json.dumps(told)}))
    with pytest.raises(TeacherError) as refused:
        load_teacher(file)
    assert str(file) in str(refused.value)


def test_weights_in_a_pickle_are_not_opened(tmp_path: Path) -> None:
    folder = write_tiny_encoder(tmp_path / "pickled", safetensors=False)
    with pytest.raises(EncoderError, match="safetensors"):
        load_encoder(str(folder))


def test_code_that_a_model_brings_along_is_not_run(tiny: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tiny / "modeling_evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass EvilModel: pass\n")
    config = json.loads((tiny / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoModel": "modeling_evil.EvilModel", "AutoConfig": "modeling_evil.E"},
    }
    (tiny / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="no model that can be used"):
        load_encoder(str(tiny))
    assert not ran.exists()


@pytest.mark.parametrize("named", ["./nowhere", "/nowhere", "a/b/c", " ", "owner/never-downloaded"])
def test_a_model_that_is_nowhere_is_said_without_a_look_at_the_network(named: str) -> None:
    with pytest.raises(TeacherError, match="encoder"):
        open_encoder(named, download=False)


def test_a_models_digest_hangs_on_weights_and_length(tiny: Path, tmp_path: Path) -> None:
    other = write_tiny_encoder(tmp_path / "other", seed=1)
    digests = {
        load_encoder(str(tiny)).digest,
        load_encoder(str(tiny), max_tokens=8).digest,
        load_encoder(str(other)).digest,
    }
    assert len(digests) == 3


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 64))
def test_batches_hold_every_text_once_and_no_more_tokens_than_they_may(lengths: list[int], most: int) -> None:
    tokens = [[0] * length for length in lengths]
    batches = list(batches_by_length(tokens, most))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or longest * len(batch) <= most


@pytest.mark.parametrize("tune", [Tune.NEVER, Tune.ALWAYS])
def test_a_teacher_learns_again_without_rows_that_are_validated_on(tiny: Path, tune: Tune) -> None:
    teacher = tiny_teacher(tiny, tune)
    before = teacher.score(FEW.texts)
    known = FEW.take([0, 1, 2, 5, 6, 7])
    scores = teacher.without(known, FEW.texts, ["another", "card", "refund"])
    assert scores.shape == (len(FEW), 3)
    assert not scores[:, 0].any()
    # As a teacher that never saw the other rows.
    apart = fit_teacher(load_encoder(str(tiny)), known, NONE, tune=Tune.NEVER, threads=1)
    np.testing.assert_allclose(scores[:, 1:], apart.score(FEW.texts), rtol=1e-5)
    assert (teacher.score(FEW.texts) == before).all()


def test_a_remembered_text_is_not_seen_twice_and_forgotten_with_the_weights(tiny: Path) -> None:
    encoder = load_encoder(str(tiny))
    plain = encoder.embed(FEW.texts)
    encoder.remember()
    told: list[int] = []
    for _ in range(2):
        np.testing.assert_allclose(encoder.embed(FEW.texts, lambda done, _: told.append(done)), plain, atol=1e-6)
    assert told[-1] == len(set(FEW.texts))
    assert told.count(len(set(FEW.texts))) == 1
    fit_teacher(encoder, FEW, NONE, tune=Tune.ALWAYS, threads=1)
    assert np.abs(encoder.embed(FEW.texts) - plain).max() > 1e-4
    assert encoder.embed([]).shape == (0, encoder.dimensions)
