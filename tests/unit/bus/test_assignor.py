"""Partitions are dealt evenly, and otherwise as Faust's assignor deals them, over comings and goings of workers."""

from __future__ import annotations

from typing import Any, ClassVar

from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from tpstream.bus.assignor import LaneAssignor, even_out, member_name


@given(st.integers(0, 12), st.integers(1, 5), st.data())
def test_evened_out_each_partition_is_somebodys_once(partitions: int, members: int, data: Any) -> None:
    names = [f"m{n}" for n in range(members)]
    owner = {p: data.draw(st.sampled_from(names)) for p in range(partitions)}
    actives = {m: {p for p in owner if owner[p] == m} for m in names}
    spare = {p: data.draw(st.sampled_from(names)) for p in owner}
    standbys = {m: {p for p in owner if spare[p] == m and owner[p] != m} for m in names}
    followed = sorted(p for numbers in standbys.values() for p in numbers)
    even_out(actives, standbys, {})
    assert sorted(p for numbers in actives.values() for p in numbers) == list(range(partitions))
    assert max(map(len, actives.values())) - min(map(len, actives.values())) <= 1
    assert sorted(p for numbers in standbys.values() for p in numbers) == followed
    assert not any(actives[m] & standbys[m] for m in names)


def test_who_stood_by_for_a_partition_gets_it() -> None:
    actives, standbys = {"a": {0, 1, 2}, "b": set[int]()}, {"a": set[int](), "b": {1}}
    even_out(actives, standbys, {})
    assert (actives, standbys) == ({"a": {0, 2}, "b": {1}}, {"a": {1}, "b": set()})


class Cluster:
    """What an assignor asks of Kafka's metadata."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self.partitions))


class App:
    """What an assignor asks of a Faust app."""

    tracer = None

    class tables:
        changelog_topics: frozenset[str] = frozenset()
        data: ClassVar[dict[str, Any]] = {}

    class sensors:
        on_assignment_start = on_assignment_completed = on_assignment_error = staticmethod(lambda *args: None)

    def __init__(self, url: str) -> None:
        self.conf = type("Conf", (), {"canonical_url": url})


TOPICS = ["t1", "t2"]


def test_what_one_holds_stays_rather_than_what_it_is_to_get() -> None:
    """A worker that has died had 6: its heir gives that on, and keeps what it reads at present."""
    actives, standbys = {"a": {1, 2, 6}, "b": {3}, "c": {4, 5}}, {"a": set(), "b": set(), "c": set()}
    even_out(actives, standbys, {"a": {1, 2}, "b": {3}, "c": {4, 5}})
    assert actives == {"a": {1, 2}, "b": {3, 6}, "c": {4, 5}}
    actives["a"], actives["b"] = {1, 2, 6}, {0}
    even_out(actives, standbys, {"a": {2, 6}})
    assert actives["a"] == {2, 6}


@given(st.integers(1, 9), st.lists(st.sampled_from("abcde"), min_size=1, max_size=6))
def test_over_comings_and_goings(partitions: int, toggles: list[str]) -> None:
    """Both topics keep the same numbers on the same worker, all are dealt, evenly, and none moves without need."""
    cluster: Any = Cluster(partitions)
    there: dict[str, LaneAssignor] = {}
    for name in toggles:
        if name in there:
            del there[name]
        else:
            there[name] = LaneAssignor(App(f"http://{name}"), replicas=1)
        if not there:
            continue
        before = {m: {tp.partition for tp in a.assigned_actives()} for m, a in there.items()}
        standbys = {m: {tp.partition for tp in a.assigned_standbys()} for m, a in there.items()}
        metadata = {m: ConsumerProtocolMemberMetadata(4, TOPICS, a._metadata.dumps()) for m, a in there.items()}
        told = next(iter(there.values())).assign(cluster, metadata)
        for m, assignor in there.items():
            assignor.on_assignment(told[m])
        owned = {m: dict(told[m].assignment) for m in there}
        numbers = {m: set(one.get("t1", [])) for m, one in owned.items()}
        assert all(set(one.get("t2", [])) == numbers[m] for m, one in owned.items())
        assert sorted(p for one in numbers.values() for p in one) == list(range(partitions))
        assert max(map(len, numbers.values())) - min(map(len, numbers.values())) <= 1
        share = partitions // len(there)
        for m in there:
            unready = [n for n in before[m] - numbers[m] if not any(n in numbers[o] & standbys[o] for o in there)]
            kept = len(before[m]) - len(unready)
            assert kept >= min(len(before[m]), share), "but to its standby, no worker gives up what it may keep"


def test_what_was_dealt_to_its_last_process_is_taken_at_another_address() -> None:
    """Kafka answers a static member that comes back with what it has kept."""
    cluster: Any = Cluster(4)
    members = {name: LaneAssignor(App(f"http://{name}:1"), replicas=1) for name in "ab"}
    metadata = {m: ConsumerProtocolMemberMetadata(4, TOPICS, one._metadata.dumps()) for m, one in members.items()}
    told = members["a"].assign(cluster, metadata)
    again = LaneAssignor(App("http://a:2"), replicas=1)
    again.on_assignment(told["a"])
    assert {tp.partition for tp in again.assigned_actives()} == set(dict(told["a"].assignment)["t1"])
    assert set(again.external_topics_metadata()) == {"http://a:2", "http://b:1"}
    assert again._metadata.url == "http://a:2"


def test_a_members_name_says_what_it_reads_in_any_order() -> None:
    assert member_name("process-1", ["b", "a"]) == member_name("process-1", ["a", "b"])
    assert len({member_name(*of) for of in [("p", ["a"]), ("p", ["a", "b"]), ("q", ["a"])]}) == 3
