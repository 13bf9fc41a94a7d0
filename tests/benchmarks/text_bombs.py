"""How long a worker's stages take for each bomb of tests/support/bombs.py, as a table in Markdown.

    python tests/benchmarks/text_bombs.py

Each is a batch of its own on one thread of the cpu backend: decode, infer and encode, the best of five. The network has
random weights and reads at most 256 words of a text. First by the default limit of a text's size, then with
requests.max_text_bytes at a megabyte.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from headrace.kafka.interface import FetchedRecord
from headrace.model.backends.interface import Backend, open_backend
from headrace.worker.pipeline import Computed
from headrace_schemas.codec import MAX_TEXT_BYTES, decode_result
from headrace_schemas.paths import RequestShape
from tests.support.bombs import BOMBS, RAISED, headers_of
from tests.support.networks import random_artifact
from tests.support.staged_batches import staged

ROUNDS = 5


def measured(record: FetchedRecord, backend: Backend, limit: int) -> tuple[str, float]:
    """What came of it, and the milliseconds of all stages."""
    shape = RequestShape(max_text_bytes=limit)

    def once() -> Computed:
        return staged([record], backend, shape=shape, monotonic=time.perf_counter)

    rounds = [once() for _ in range(ROUNDS)]
    best = min(one.decode_s + one.infer_s + one.encode_s for one in rounds)
    answer = decode_result(rounds[0].encoded[0].answers[0].value)
    return answer.reason or answer.status.value, 1000 * best


def main() -> None:
    backend = open_backend("cpu", random_artifact(1, max_tokens=256, dimensions=128, filters=96, extra_words=30_000))
    backend.warm()
    print(f"| request | KB | up to {MAX_TEXT_BYTES:,} bytes | ms | up to {RAISED:,} bytes | ms |")
    print("|---|---|---|---|---|---|")
    for name, make, content_type, *_ in BOMBS:
        value = make()
        record = FetchedRecord("requests", 0, 5, 0, None, value, headers_of(content_type))
        cells = [measured(record, backend, limit) for limit in (MAX_TEXT_BYTES, RAISED)]
        shown = " | ".join(f"{outcome} | {took:.2f}" for outcome, took in cells)
        print(f"| {name} | {len(value or b'') / 1000:,.1f} | {shown} |")


if __name__ == "__main__":
    main()
