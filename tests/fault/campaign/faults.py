"""The faults: what each does to the stage, from its beginning until nothing is held broken any more.

A fault returns when its cause is over; whether the platform recovers from it is for the campaign to see.
It raises NotThere where it could not be caused.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fault.campaign.devices import KEEP_ALIVE
from fault.campaign.stage import BRIDGE, SESSION, NotThere, Stage
from parts.proxy import clickhouse_241, http_500, http_insert, kafka_produce

PROCESS, STORE = "process", "store"

STEPS = {PROCESS: ("fence", "flush", "changelog", "commit", "state"), STORE: ("fence", "flush", "commit")}
"""The steps of a checkpoint after which a worker of each role is killed."""

ORDERED = 20.0
"""Seconds within which a worker takes its next checkpoint, and so obeys."""


@dataclass(slots=True)
class Setting:
    """Where a fault is caused, by which dice, and for how long things are away."""

    stage: Stage
    dice: random.Random
    store_away: float = 60.0
    kafka_away: float = 30.0

    def worker(self, role: str) -> str:
        """Any worker of a role that has partitions: a fault of an idle one would try nothing."""
        end = time.monotonic() + ORDERED
        while not (busy := [name for name in self.stage.names(role) if self.stage.busy(name)]):
            if time.monotonic() > end:
                raise NotThere(f"no worker of the role {role} has partitions")
            time.sleep(0.5)
        return self.dice.choice(busy)


Fault = Callable[[Setting], None]


def killed(role: str, at: Setting) -> None:
    """SIGKILL at any moment; started again after 0 to 4 seconds."""
    name = at.worker(role)
    at.stage.release(name).kill()
    time.sleep(at.dice.uniform(0, 4))
    at.stage.add(name)


def killed_after(role: str, step: str, at: Setting) -> None:
    """SIGKILL between two steps of a checkpoint; started again at once."""
    name = at.worker(role)
    worker = at.stage.release(name)
    try:
        path = at.stage.order(name, "kill", step)
        at.stage.wait(lambda: not worker.running, f"{name} was to die after {step}", ORDERED)
    finally:
        path.unlink(missing_ok=True)
        at.stage.keep(name)


def zombie(role: str, at: Setting) -> None:
    """SIGSTOP until its session is long over, then SIGCONT."""
    worker = at.stage.workers[at.worker(role)]
    worker.send(signal.SIGSTOP)
    time.sleep(SESSION + at.dice.uniform(2, 5))
    worker.send(signal.SIGCONT)


def zombie_after(role: str, at: Setting) -> None:
    """As `zombie`, stopped between two steps of a checkpoint, so that it wakes up in the middle of it."""
    name, step = at.worker(role), at.dice.choice(STEPS[role])
    worker = at.stage.workers[name]
    path = at.stage.order(name, "stop", step)
    try:
        at.stage.wait(lambda: worker.paused, f"{name} was to stop after {step}", ORDERED)
        time.sleep(SESSION + at.dice.uniform(2, 5))
    finally:
        path.unlink(missing_ok=True)
        worker.send(signal.SIGCONT)


def woken(at: Setting) -> None:
    """A worker is stopped before it writes its changelog, and wakes up when its only successor has been killed.

    So its words are the last in the changelog, and whoever comes next has to tell whose they are.
    """
    if len(at.stage.names(PROCESS)) < 2:
        added(PROCESS, at)
        time.sleep(SESSION)
    zombie = at.worker(PROCESS)
    # With more than two it would not be known whose the zombie's partitions will be.
    successor, *more = [name for name in at.stage.names(PROCESS) if name != zombie]
    for name in more:
        at.stage.release(name).stop()
    worker = at.stage.workers[zombie]
    path = at.stage.order(zombie, "stop", "flush")
    try:
        at.stage.wait(lambda: worker.paused, f"{zombie} was to stop after flush", ORDERED)
        time.sleep(SESSION + 4)
        # It has committed what it did with the partitions, so that this does not come again.
        other = at.stage.release(successor)
        path = at.stage.order(successor, "kill", "state")
        at.stage.wait(lambda: not other.running, f"{successor} was to die after state", ORDERED)
    finally:
        path.unlink(missing_ok=True)
        worker.send(signal.SIGCONT)
        time.sleep(1)
        at.stage.keep(successor)


def added(role: str, at: Setting) -> None:
    """One more worker joins; it stays until `removed` or `replaced` takes one away."""
    taken = at.stage.names(role)
    at.stage.add(next(name for n in range(100) if (name := f"{role}-{n}") not in taken))


def removed(role: str, at: Setting) -> None:
    """A worker is stopped by SIGTERM; where it was the last one, it is started again."""
    name = at.worker(role)
    at.stage.release(name).stop()
    if not at.stage.names(role):
        at.stage.add(name)


def replaced(role: str, at: Setting) -> None:
    """Three workers, each stopped by SIGTERM and started again, one after the other."""
    while len(at.stage.names(role)) < 3:
        added(role, at)
        time.sleep(3)
    for name in at.stage.names(role)[:3]:
        at.stage.release(name).stop()
        at.stage.add(name)
        time.sleep(at.dice.uniform(1, 4))


def state_lost(at: Setting) -> None:
    """A worker is killed, and the disk under its state is lost."""
    name = at.worker(PROCESS)
    at.stage.release(name).kill()
    at.stage.lose_state(name)
    at.stage.add(name)


def store_killed(at: Setting) -> None:
    """SIGKILL, in the middle of inserts; started again at once."""
    at.stage.store.kill()
    at.stage.store.start()
    at.stage.wait(at.stage.store_answers, "the store", 60)


def store_away(at: Setting) -> None:
    """SIGSTOP: connections stay open, nothing is answered."""
    at.stage.store.send(signal.SIGSTOP)
    time.sleep(at.store_away)
    at.stage.store.send(signal.SIGCONT)


def store_errors(at: Setting) -> None:
    """For a while every request is answered by an error: a bare 500, or ClickHouse's own for want of memory."""
    at.stage.to_store.answer = at.dice.choice([http_500, clickhouse_241])
    at.stage.to_store.cut()
    time.sleep(at.dice.uniform(4, 8))
    at.stage.to_store.answer = None
    at.stage.to_store.cut()


def insert_cut(at: Setting) -> None:
    """Five inserts reach the store, and the connection is cut before the worker hears of it."""
    at.stage.to_store.cut_answers(http_insert, 5)
    if not at.stage.to_store.wait_cut(30):
        raise NotThere("five inserts were to be cut off")


def kafka_killed(at: Setting) -> None:
    """SIGKILL; started again at once."""
    at.stage.kafka.kill()
    at.stage.kafka.start()
    at.stage.wait(lambda: at.stage.listens(at.stage.kafka_port), "Kafka", 60)


def kafka_away(at: Setting) -> None:
    """SIGSTOP: connections stay open, nothing is answered."""
    at.stage.kafka.send(signal.SIGSTOP)
    time.sleep(at.kafka_away)
    at.stage.kafka.send(signal.SIGCONT)


def produce_cut(at: Setting) -> None:
    """Twenty produce requests, of bridge, workers and publisher, reach Kafka, and their answers nobody."""
    at.stage.to_kafka.cut_answers(kafka_produce, 20)
    if not at.stage.to_kafka.wait_cut(30):
        raise NotThere("twenty produce requests were to be cut off")


def kafka_killed_unheard(at: Setting) -> None:
    """Produce requests reach Kafka, which is killed before anybody, the bridge among them, has heard of it.

    So bridge, workers and publisher send again, to the next process, what its log has already.
    """
    at.stage.to_kafka.cut_answers(kafka_produce, 1_000)
    try:
        time.sleep(at.dice.uniform(0.2, 0.6))
        kafka_killed(at)
    finally:
        at.stage.to_kafka.heal()


def bridge_killed(at: Setting) -> None:
    """SIGKILL; started again after 0 to 4 seconds. Devices connect again and repeat what was not acknowledged."""
    at.stage.release(BRIDGE).kill()
    time.sleep(at.dice.uniform(0, 4))
    at.stage.add(BRIDGE)


def bridge_stopped(at: Setting) -> None:
    """SIGSTOP until devices have taken their connections for dead and repeat on new ones, then SIGCONT."""
    at.stage.workers[BRIDGE].send(signal.SIGSTOP)
    time.sleep(2 * KEEP_ALIVE + at.dice.uniform(1, 4))
    at.stage.workers[BRIDGE].send(signal.SIGCONT)


def delay(at: Setting) -> None:
    """Every chunk to and from Kafka and the store takes 50 to 200 ms."""
    at.stage.to_kafka.delay = at.stage.to_store.delay = at.dice.uniform(0.05, 0.2)
    time.sleep(8)


def cuts(at: Setting) -> None:
    """Half of all connections are reset, ten times in a row; the last time the network is away for three seconds."""
    for _ in range(10):
        at.stage.to_kafka.cut(0.5)
        at.stage.to_store.cut(0.5)
        time.sleep(at.dice.uniform(0.1, 1))
    at.stage.to_kafka.swallow = at.stage.to_store.swallow = True
    time.sleep(3)


FAULTS: dict[str, Fault] = {
    "worker killed": partial(killed, PROCESS),
    **{f"worker killed after `{step}`": partial(killed_after, PROCESS, step) for step in STEPS[PROCESS]},
    "storing worker killed": partial(killed, STORE),
    **{f"storing worker killed after `{step}`": partial(killed_after, STORE, step) for step in STEPS[STORE]},
    "worker stopped beyond its session": partial(zombie, PROCESS),
    "worker stopped within a checkpoint": partial(zombie_after, PROCESS),
    "worker wakes up when its successor is dead": woken,
    "storing worker stopped beyond its session": partial(zombie, STORE),
    "storing worker stopped within a checkpoint": partial(zombie_after, STORE),
    "worker added": partial(added, PROCESS),
    "storing worker added": partial(added, STORE),
    "worker removed": partial(removed, PROCESS),
    "storing worker removed": partial(removed, STORE),
    "three workers replaced": partial(replaced, PROCESS),
    "state lost": state_lost,
    "store killed": store_killed,
    "store away": store_away,
    "store answers errors": store_errors,
    "insert cut before its answer": insert_cut,
    "Kafka killed": kafka_killed,
    "Kafka away": kafka_away,
    "produce cut before its answer": produce_cut,
    "Kafka killed before its answers": kafka_killed_unheard,
    "bridge killed": bridge_killed,
    "bridge stopped": bridge_stopped,
    "network delayed": delay,
    "network cut": cuts,
}
"""By the name that the table shows."""
