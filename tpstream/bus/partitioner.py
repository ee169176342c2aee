"""Which partition a key belongs to: murmur2, as in Kafka's own clients."""

from __future__ import annotations

from functools import lru_cache

from aiokafka.partitioner import murmur2


@lru_cache(maxsize=200_000)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key; cached, as the hash is plain Python (bounded at 200,000 keys)."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
