"""The fault campaign can be trusted: it catches a worker that is broken, and finds nothing where none is."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from fault.campaign.breaks import BREAKS
from fault.campaign.campaign import Campaign
from fault.campaign.faults import PROCESS, STORE, Fault, bridge_killed, kafka_killed_unheard, killed_after, woken
from fault.campaign.oracle import What
from fault.campaign.stage import Stage

from tpstream.embedded.apache import Apache
from tpstream.errors import ConfigurationError

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 1


@pytest.fixture(autouse=True)
def jars() -> None:
    """Leave these out where Apache Kafka cannot run."""
    try:
        Apache(Path(), "127.0.0.1", 0).check()
    except ConfigurationError as error:
        pytest.skip(f"needs Apache Kafka: {error}")


def found(folder: Path, broken: str, faults: dict[str, Fault], workers: int = 1) -> Counter[What]:
    """What a short campaign with these faults finds on a platform whose workers are broken in this way."""
    stage = Stage(folder, broken=broken)
    try:
        campaign = Campaign(stage, seed=SEED, rate=2_000, workers=workers, short=True, faults=faults)
        result = campaign.run(list(faults))
    finally:
        stage.end()
    assert [span.trouble for span in result.spans if span.trouble] == [], "the faults could be caused"
    return Counter(finding.what for finding in result.findings)


def twice(name: str, fault: Fault) -> dict[str, Fault]:
    """The fault under two names."""
    return {f"{name}, {which}": fault for which in ("once", "again")}


KILLED_BY_COMMIT = twice("storing worker killed after `commit`", partial(killed_after, STORE, "commit"))
KILLED_BEFORE_COMMIT = twice("worker killed after `changelog`", partial(killed_after, PROCESS, "changelog"))
ZOMBIE = twice("zombie wakes up when its successor is dead", woken)
UNHEARD: dict[str, Fault] = {"Kafka killed before its answers": kafka_killed_unheard}
BRIDGE: dict[str, Fault] = {"bridge killed": bridge_killed}


def test_every_break_is_tried() -> None:
    assert len(BREAKS) == 4


def test_points_are_lost_where_offsets_are_committed_too_early(tmp_path: Path) -> None:
    assert found(tmp_path, "commits early", KILLED_BY_COMMIT)[What.LOST] > 0


def test_windows_are_wrong_where_a_folded_offset_is_forgotten(tmp_path: Path) -> None:
    wrong = found(tmp_path, "forgets marks", KILLED_BEFORE_COMMIT)
    assert wrong[What.WINDOW] > 0
    assert wrong[What.LOST] == 0


def test_windows_are_wrong_where_a_zombies_word_counts(tmp_path: Path) -> None:
    assert found(tmp_path, "ignores zombies", ZOMBIE, workers=2)[What.WINDOW] > 0


def test_messages_are_doubled_where_what_a_bridge_repeats_is_not_known_again(tmp_path: Path) -> None:
    wrong = found(tmp_path, "hears no repeats", UNHEARD)
    assert wrong[What.DUPLICATED] > 0
    assert wrong[What.LOST] == 0


def test_nothing_is_found_where_nothing_is_broken(tmp_path: Path) -> None:
    assert found(tmp_path, "", KILLED_BY_COMMIT | KILLED_BEFORE_COMMIT | ZOMBIE | UNHEARD | BRIDGE, workers=2) == {}
