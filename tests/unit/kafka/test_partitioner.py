from __future__ import annotations

import pytest

from headrace.kafka.aio.producer import partition_of_key

# From Kafka's own UtilsTest.testMurmur2.
JAVA_HASHES = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize(("key", "java_hash"), JAVA_HASHES.items())
@pytest.mark.parametrize("partitions", [1, 4, 1000])
def test_a_key_goes_where_java_s_client_puts_it(key, java_hash, partitions):
    assert partition_of_key(key.encode(), partitions) == (java_hash & 0x7FFFFFFF) % partitions
