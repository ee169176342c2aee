"""A command that was accepted is known afterwards, however late it came before an orderly stop."""

from __future__ import annotations

import http.client
import threading
import urllib.error
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from parts.whole import Platform

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_what_was_accepted_before_the_stop_is_in_the_store_after_it(
    platform: Callable[..., Platform], tmp_path: Path
) -> None:
    one = platform(data_dir=tmp_path / "var")
    accepted: list[str] = []
    answers: Counter[int] = Counter()

    def send() -> None:
        """Commands without a pause, until nobody listens any more."""
        while True:
            try:
                status, answer = one.api("POST", "/api/v1/devices/nobody/commands", {"method": "m"})
            except (urllib.error.URLError, http.client.HTTPException, OSError):
                return
            answers[status] += 1
            if status == 202:
                accepted.append(answer["id"])

    senders = [threading.Thread(target=send) for _ in range(2)]
    for sender in senders:
        sender.start()
    one.wait(lambda: len(accepted) > 20)
    assert one.stop() == 0
    for sender in senders:
        sender.join(10)
    assert set(answers) == {202, 503}
    assert "has not worked off everything" not in one.output.read_text()
    one.start()
    one.wait(lambda: one.rows("SELECT count() FROM commands")[:1] != [])
    stored = {id for (id,) in one.rows("SELECT id FROM commands")}
    assert set(accepted) <= stored
    assert one.stop() == 0
