"""Health: 200 only when every part is well; one entry per part; a check that fails is a part that is not well."""

from __future__ import annotations

import pytest

from tpstream.observability.health import Health, Part


def test_all_parts_well_is_200_with_an_entry_each() -> None:
    health = Health()
    health.register("kafka", lambda: Part(True, "connected"))
    health.register("windows", lambda: Part(True, "8 partitions", partitions=8))
    health.number("lag", lambda: 3)

    status, report = health.answer()

    assert status == 200
    assert report == {
        "ok": True,
        "lag": 3,
        "kafka": {"ok": True, "detail": "connected"},
        "windows": {"ok": True, "detail": "8 partitions", "partitions": 8},
    }


def test_one_part_away_is_503_and_the_others_keep_their_entries() -> None:
    health = Health()
    health.register("kafka", lambda: Part(False, "not reachable; waiting"))
    health.register("store", lambda: Part(True))

    status, report = health.answer()

    assert status == 503
    assert report["ok"] is False
    assert report["store"]["ok"] is True


def test_a_check_that_raises_is_a_part_that_is_not_well() -> None:
    health = Health()
    health.register("store", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    health.number("lag", lambda: 1 / 0)

    status, report = health.answer()

    assert status == 503
    assert "ZeroDivisionError" in report["store"]["detail"]
    assert report["lag"] is None


def test_names_of_parts_and_numbers_never_collide() -> None:
    health = Health()
    health.number("lag", lambda: 0)
    health.register("kafka", lambda: Part(True))

    with pytest.raises(ValueError, match="lag"):
        health.register("lag", lambda: Part(True))
    with pytest.raises(ValueError, match="kafka"):
        health.number("kafka", lambda: 0)
    with pytest.raises(ValueError, match="ok"):
        health.register("ok", lambda: Part(True))


def test_a_part_that_is_gone_is_forgotten() -> None:
    health = Health()
    health.register("store", lambda: Part(False))
    health.unregister("store")

    assert health.answer() == (200, {"ok": True})
