"""Faust around the lane: membership, rebalance, commits, web and life cycle stay Faust's.

Three classes of Faust are subclassed, none is patched: the consumer hands lists of records of
lane topics to the lane instead of taking them apart (`getmany`), the transport makes that
consumer, and the app tells the lane when partitions come and go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import faust
from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    NoError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from tpstream.bus.assignor import LaneAssignor, member_name
from tpstream.bus.changelog import Superseded
from tpstream.bus.fetched import lean
from tpstream.bus.lane import Lane
from tpstream.bus.progress import Place, Progress
from tpstream.errors import Unavailable
from tpstream.settings import Settings

log = logging.getLogger(__name__)

MOST = 5_000
"""Records that are taken from the client at once, of all partitions."""

MANY = 1_000
"""Records at once that are no reason to wait for company."""

FETCH_BYTES = 2_500_000
"""Of one answer to a fetch: the client holds it three times over while it reads it. By what a partition may bring it
would be 16 MB with eight."""

_FENCED = 82
"""Kafka's error for a static member whose place another process has taken."""


class LaneConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread with a fetch wait of our own: Faust's is fixed at 1,500 ms."""

    async def on_start(self) -> None:
        """Start the client; records of lane topics come as its parser makes them."""
        await super().on_start()
        lean(self._consumer, self.app.lane.topics)
        loop, lane = self.app.loop, self.app.lane

        def ended(fetching: asyncio.Future[None]) -> None:
            # Heartbeats would go on, and the partitions stand still.
            if not fetching.cancelled() and (error := fetching.exception()) is not None:
                loop.call_soon_threadsafe(lane.fail, f"the Kafka client fetches no more: {error!r}")

        self._consumer._fetcher.error_future.add_done_callback(ended)

    def _create_worker_consumer(self, transport: Any) -> Any:
        # The embedded broker looks for new records only now and then while it holds a fetch:
        # 150 ms to 700 ms of latency a hop at Faust's wait, 2 to 20 ms at 50 (measured).
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms
        consumer._fetch_max_bytes = FETCH_BYTES
        if instance := self.app.conf.consumer_group_instance_id:
            consumer._group_instance_id = member_name(instance, self.app.lane.topics)
        return consumer


class LaneConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, which gives lane topics to the lane list by list."""

    app: LaneApp
    logger = driver.logger
    _fetched_at = 0.0
    _behind = False
    """Whether the last fetch brought so many records that there are more."""

    def _new_consumer_thread(self) -> LaneConsumerThread:
        return LaneConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Hand lane records to the lane; yield all others one by one, as Faust does."""
        lane, assignment = self.app.lane, self.app.lane.assignment
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records or self.should_stop:
            return
        if not self.flow_active or lane.assignment != assignment:
            # Asked for before partitions went or came: of which assignment they are cannot be told.
            if self.assignment():
                await self.perform_seek()
                await self._thread.call_thread(self._begin_again, list(records))
            return
        others: dict[TP, Any] = {}
        for tp, some in records.items():
            if tp.topic in lane.topics:
                lane.offer(tp.topic, tp.partition, some, self._committed_offset.get(TP(*tp)))
            else:
                others[tp] = some
        for tp, record in self.scheduler.iterate(others):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                yield tp, self._to_message(tp, record)

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        """As Faust's, but with all partitions paused it waits for one to resume, not for a second.

        It goes on touching the client's fetch context meanwhile: Kafka takes partitions away
        from a member that does not ask for records for `max.poll.interval`.
        """
        if self.flow_active and not self._get_active_partitions():
            self.app.resumed.clear()
            await self._thread.call_thread(self._touch)
            try:
                await asyncio.wait_for(self.app.resumed.wait(), 1.0)
            except TimeoutError:
                return None, None
        # Each fetch costs the broker and us as much as dozens of records (measured): take more at once.
        rest = self.app.linger - (time.monotonic() - self._fetched_at)
        if rest > 0 and not self._behind:
            await self.sleep(rest)
        self._fetched_at = time.monotonic()
        records, active = await super()._wait_next_records(timeout)
        self._behind = records is not None and sum(map(len, records.values())) > MANY
        return records, active

    async def _begin_again(self, places: list[TP]) -> None:
        """Fetch these partitions from where they were committed; `perform_seek` leaves out those that never were."""
        kafka = self._thread._ensure_consumer()
        for place in map(TopicPartition._make, places):
            with contextlib.suppress(IllegalStateError):  # not ours any more
                if not await kafka.committed(place):
                    await kafka.seek_to_beginning(place)

    async def _touch(self) -> None:
        with self._thread._ensure_consumer()._fetcher._subscriptions.fetch_context():
            pass

    def fetching(self, tp: TP) -> Any:
        """The client's state of a partition (`position`, `highwater`), or None while it has none."""
        subscription = self._thread._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None or tp not in assignment.tps:
            return None
        state = assignment.state_value(TopicPartition(*tp))
        return state if state.has_valid_position else None

    async def still_member(self) -> None:
        """Ask the group whether we are its member. Unavailable: ask again; Superseded: we are not.

        Kafka's word is worth more than a clock: a process that slept finds its heartbeats recent.
        """
        coordinator = self._thread._ensure_consumer()._coordinator

        async def ask() -> type[KafkaError]:
            request = HeartbeatRequest(coordinator.group_id, coordinator.generation, coordinator.member_id)
            answer = await coordinator._send_req(request)
            return for_code(answer.error_code)  # type: ignore[no-any-return]

        try:
            answer = await self._thread.call_thread(ask)
        except KafkaError as error:
            raise Unavailable(f"the group at Kafka does not answer ({type(error).__name__})") from None
        if answer in (IllegalGenerationError, UnknownMemberIdError) or answer.errno == _FENCED:
            raise Superseded(f"this worker is no member of its group any more ({answer.__name__})")
        if answer not in (NoError, RebalanceInProgressError):
            raise Unavailable(f"the group at Kafka is not served ({answer.__name__})")

    async def commit_lane(self, offsets: Mapping[Place, int]) -> None:
        """Commit offsets of lane topics. Unavailable: try again; Superseded: no longer ours."""
        kafka = self._thread._ensure_consumer()
        wanted = {TopicPartition(*place): OffsetAndMetadata(offset, "") for place, offset in offsets.items()}
        try:
            await self._thread.call_thread(kafka.commit, wanted)
        except (CommitFailedError, IllegalGenerationError, UnknownMemberIdError, IllegalStateError) as error:
            raise Superseded(f"offsets were not committed: {type(error).__name__}") from None
        except RebalanceInProgressError as error:
            raise Unavailable(f"the group is rebalancing ({type(error).__name__})") from None
        except KafkaError as error:
            raise Unavailable(f"Kafka did not take the offsets ({type(error).__name__})") from None


class LaneTransport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka transport with the lane's consumer."""

    Consumer = LaneConsumer


Assigned = Callable[[set[Place]], Awaitable[None]]
Revoked = Callable[[set[Place]], Awaitable[None]]


class LaneApp(faust.App):  # type: ignore[misc]
    """A Faust app whose lane topics bypass Faust's streams. Plain `@agent`s work beside them."""

    logger = logging.getLogger("faust.app")

    lane: Lane
    resumed: asyncio.Event

    def __init__(self, group: str, settings: Settings, *, web_port: int | None, **options: Any) -> None:
        folder = settings.data_dir / "faust" / group
        folder.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(
            group,
            broker=[f"aiokafka://{server}" for server in settings.bootstrap.split(",")],
            datadir=str(folder),
            topic_partitions=settings.partitions,
            topic_replication_factor=settings.replication,
            topic_allow_declare=True,
            topic_disable_leader=True,
            autodiscover=False,
            consumer_auto_offset_reset="earliest",
            consumer_group_instance_id=settings.instance or None,
            PartitionAssignor=LaneAssignor,
            # Not with 0: Faust would deal partitions out singly then, not by their numbers.
            table_standby_replicas=1,
            consumer_max_fetch_size=2_000_000,
            broker_max_poll_records=MOST,
            broker_session_timeout=settings.session_timeout,
            broker_rebalance_timeout=max(settings.session_timeout, 10.0),
            broker_heartbeat_interval=max(0.3, min(3.0, settings.session_timeout / 5)),
            broker_request_timeout=max(30.0, settings.session_timeout * 2),
            broker_commit_livelock_soft_timeout=86_400.0,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            web_enabled=web_port is not None,
            web_bind=settings.host,
            web_host=settings.host,
            web_port=web_port or 6066,
            web_tables_enabled=False,
            env_prefix="TPSTREAM_FAUST_",
            **options,
        )
        self.linger = settings.linger_ms / 1000
        self.fetch_wait_ms = settings.fetch_wait_ms
        self.resumed = asyncio.Event()
        self.when_assigned: Assigned | None = None
        self.when_revoked: Revoked | None = None

    def _new_transport(self) -> LaneTransport:
        return LaneTransport(self.conf.broker_consumer, self)

    def subscribe_lane(self, lane: Lane) -> None:
        """Have the group subscribe to the lane's topics; call before start."""
        self.lane = lane
        for topic in lane.topics:
            self.topics.add(self.topic(topic))

    def standby_numbers(self) -> set[int]:
        """The partition numbers that this worker is to stand by for, by Faust's assignor."""
        standbys = self.assignor.assigned_standbys()
        return {tp.partition for tp in standbys if tp.topic in self.lane.joined}

    def pause_lane(self, topic: str, partition: int) -> None:
        """Fetch no more of a partition for now."""
        self.consumer.pause_partitions({TP(topic, partition)})

    def resume_lane(self, topic: str, partition: int) -> None:
        """Fetch a paused partition again."""
        self.consumer.resume_partitions({TP(topic, partition)})
        self.resumed.set()

    def lag(self) -> dict[Place, int]:
        """Records behind the end of each lane partition that are not committed, as of its last fetch."""
        return {place: self._behind(place, progress) for place, progress in self.lane.progress.items()}

    def _behind(self, place: Place, progress: Progress) -> int:
        fetching = self.consumer.fetching(TP(*place))
        if fetching is None or fetching.highwater is None:
            return 0  # nothing is known before the first fetch
        done = progress.committed if progress.fetched >= 0 else fetching.position
        return max(0, int(fetching.highwater) - int(done))

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        if self.when_revoked is not None and not self.should_stop:
            await self.when_revoked({(tp.topic, tp.partition) for tp in revoked})
        await super()._on_partitions_revoked(revoked)

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        if self.when_assigned is not None and not self.should_stop:
            await self.when_assigned({(tp.topic, tp.partition) for tp in assigned})
        await super()._on_partitions_assigned(assigned, generation_id)
        # Faust pauses all partitions while it rebalances and resumes them when its tables are back.
        self.resumed.set()
