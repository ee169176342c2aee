"""Three offences in a minute quarantine a script version; each time for twice as long."""

from tpstream.lua.quarantine import Quarantine

MINUTE = 60_000


def test_three_offences_in_a_minute_quarantine_for_a_minute() -> None:
    quarantine = Quarantine()
    assert quarantine.offence("a@1", 0) is None
    assert quarantine.offence("a@1", 30_000) is None
    assert quarantine.until("a@1", 30_000) is None
    assert quarantine.offence("a@1", 59_999) == 59_999 + MINUTE
    assert quarantine.until("a@1", 59_999 + MINUTE - 1) == 59_999 + MINUTE
    assert quarantine.until("a@1", 59_999 + MINUTE) is None


def test_offences_further_apart_are_forgotten() -> None:
    quarantine = Quarantine()
    for n in range(10):
        assert quarantine.offence("a@1", n * 30_000) is None


def test_another_script_or_version_is_not_concerned() -> None:
    quarantine = Quarantine()
    for _ in range(3):
        quarantine.offence("a@1", 0)
    assert quarantine.until("a@1", 0)
    assert quarantine.until("a@2", 0) is None
    assert quarantine.offence("a@2", 0) is None


def test_each_further_quarantine_is_twice_as_long_up_to_an_hour() -> None:
    quarantine = Quarantine()
    now, lengths = 0, []
    for _ in range(9):
        for _ in range(3):
            until = quarantine.offence("a@1", now)
        assert until is not None
        lengths.append((until - now) // MINUTE)
        now = until
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60, 60]
