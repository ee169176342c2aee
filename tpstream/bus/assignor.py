"""Faust's assignor, with the partitions dealt evenly, and fit for static members.

Faust fills workers up to the rounded-up share, so that the last of five has none of eight
partitions. What it keeps together, and what it keeps where it was, stays as it is.

A static member that comes back is given what was dealt to its predecessor, without anybody being
asked: under another address, and of the topics that the predecessor read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor.client_assignment import ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor

Shares = dict[str, set[int]]
"""Partition numbers by member."""


def even_out(actives: Shares, standbys: Shares, held: Shares) -> None:
    """Move partitions until no member has two more than another.

    To a standby of theirs where there is one; and rather one that the giver is only about to get than one that
    it has `held`. Who gives one away stands by for it where the receiver did.
    """
    if not actives:
        return
    while True:
        most = max(actives, key=lambda member: (len(actives[member]), member))
        least = min(actives, key=lambda member: (len(actives[member]), member))
        if len(actives[most]) - len(actives[least]) < 2:
            return
        ready = actives[most] & standbys.get(least, set())
        movable = ready or actives[most]
        number = max(movable - held.get(most, set()) or movable)
        actives[most].remove(number)
        actives[least].add(number)
        if number in ready:
            standbys[least].remove(number)
            standbys[most].add(number)


def member_name(instance: str, topics: Iterable[str]) -> str:
    """The name of a static member: of the worker and of what it reads.

    Who reads other topics than its predecessor is another member, to whom Kafka has to deal anew. Under the same
    name it would be given the predecessor's partitions and none of its own further topics, for as long as it lives.
    """
    return f"{instance}.{zlib.crc32(' '.join(sorted(topics)).encode()):08x}"


class LaneAssignor(PartitionAssignor):  # type: ignore[misc]
    """Faust's, evened out."""

    _held: Mapping[str, Mapping[str, Iterable[int]]] = {}
    """What each member of the group had until now, by topic."""

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Take what was dealt; what was dealt to this member's last process, at another address, too."""
        told = ClientMetadata.loads(self._decompress(assignment.user_data))
        here = str(self._url)
        if told.url != here:  # Faust asserts that it is the same
            told.changelog_distribution = _moved(told.changelog_distribution, told.url, here)
            told.external_topic_distribution = _moved(told.external_topic_distribution, told.url, here)
            told.url = here
            assignment = ConsumerProtocolMemberAssignment(
                assignment.version, assignment.assignment, self._compress(told.dumps())
            )
        super().on_assignment(assignment)

    def _perform_assignment(self, cluster: Any, member_metadata: Mapping[str, Any]) -> Any:
        # Faust's own copy of it is worked on while it deals.
        self._held = {m: self._get_client_metadata(one).assignment.actives for m, one in member_metadata.items()}
        return super()._perform_assignment(cluster, member_metadata)

    def _global_table_standby_assignments(self, assignments: Any, partitions_by_topic: Mapping[str, int]) -> Any:
        # The one step between dealing and telling that Faust lets a subclass take.
        groups: dict[Any, list[str]] = {}
        for topic in partitions_by_topic:
            dealt = tuple((member, frozenset(one.actives.get(topic, ()))) for member, one in assignments.items())
            groups.setdefault(dealt, []).append(topic)
        for topics in groups.values():
            # Who does not subscribe to a topic is dealt none of it.
            members = [m for m, one in assignments.items() if topics[0] in one.actives or topics[0] in one.standbys]
            actives = {m: set(assignments[m].actives.get(topics[0], ())) for m in members}
            standbys = {m: set(assignments[m].standbys.get(topics[0], ())) for m in members}
            held = {m: set(self._held.get(m, {}).get(topics[0], ())) for m in members}
            even_out(actives, standbys, held)
            for member in members:
                for topic in topics:
                    assignments[member].actives[topic] = sorted(actives[member])
                    assignments[member].standbys[topic] = sorted(standbys[member])
        return super()._global_table_standby_assignments(assignments, partitions_by_topic)


def _moved(distribution: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if url == old else url: places for url, places in distribution.items()}
