"""What the compiled writer writes is what the codec writes, byte for byte."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.worker.stages.decode import EXPIRED
from headrace.worker.stages.encode import OTHER, PlainAnswers
from headrace.worker.stages.infer import MICROS, in_micros
from headrace_schemas.codec import encode_result
from headrace_schemas.records import ClassifyResult, Status

LABELS = ("sports", 'a "quoted" one', "경제", "")
# A text of the wire holds no lone surrogate.
IDS = st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
# The score of a best label is at least 1 / labels; below a ten-thousandth the codec writes an exponent.
ANSWERS = st.tuples(
    st.integers(-2, len(LABELS) - 1), st.integers(100, MICROS), st.integers(0, 2**32 - 1), st.integers(1, 5), IDS
)


@given(st.lists(ANSWERS, min_size=1, max_size=20), st.integers(-1, 2**62))
def test_plain_answers_are_what_the_codec_writes(rows, after) -> None:
    labels, micros, crcs, steps, ids = zip(*rows, strict=True)
    offsets = after + np.cumsum(steps)
    values = PlainAnswers('v"1', LABELS).write(
        offsets.astype(np.int64),
        after,
        np.array(crcs, np.uint32),
        np.array(labels, np.int32),
        np.array(micros, np.int64),
        ids if any(id_ is not None for id_ in ids) else [],
    )
    for place, value in enumerate(values):
        label, id_ = labels[place], ids[place]
        if value is None:
            assert label == OTHER or (id_ is not None and _written_otherwise(id_))
            continue
        expected = ClassifyResult(
            offset=int(offsets[place]),
            after=int(offsets[place - 1]) if place else after,
            crc=crcs[place],
            status=Status.EXPIRED if label == EXPIRED else Status.OK,
            version='v"1',
            label=None if label == EXPIRED else LABELS[label],
            score=None if label == EXPIRED else micros[place] / MICROS,
            id=id_,
        )
        assert value == encode_result(expected)


def _written_otherwise(id_: str) -> bool:
    return id_ == "" or msgspec.json.encode(id_) != f'"{id_}"'.encode()


@given(st.lists(st.floats(0, 1, width=32), max_size=50))
def test_a_score_is_rounded_to_the_nearest_millionth(scores) -> None:
    micros = in_micros(np.array(scores, np.float32))
    assert all(abs(micro / MICROS - score) <= 0.5 / MICROS + 1e-12 for micro, score in zip(micros, scores, strict=True))
