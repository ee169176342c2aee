"""The ledger: the numbers of messages that Kafka has acknowledged, in a file, as the publisher hears of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path


class Ledger:
    """Appends the numbers of each acknowledged batch; `read` gives them back."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def acknowledged(self, numbers: Iterable[int]) -> None:
        """Kafka has these."""
        self._file.write(array("Q", numbers).tobytes())

    @staticmethod
    def read(path: Path) -> array[int]:
        """All numbers, in the order of their acknowledgement."""
        numbers = array("Q")
        data = path.read_bytes()
        numbers.frombytes(data[: len(data) - len(data) % 8])
        return numbers


def missing(numbers: Iterable[int], count: int) -> list[int]:
    """Which of 0 … count - 1 are not in the ledger."""
    there = bytearray(count)
    for n in numbers:
        there[n] = 1
    return [n for n in range(count) if not there[n]]
