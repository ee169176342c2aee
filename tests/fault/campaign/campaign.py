"""A campaign from the first message to the last comparison."""

from __future__ import annotations

import itertools
import json
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka.partitioner import murmur2
from fault.campaign import oracle
from fault.campaign.faults import FAULTS, Fault, Setting
from fault.campaign.heard import heard
from fault.campaign.ledger import Ledger, missing
from fault.campaign.report import Result, Span
from fault.campaign.sampler import Sampler
from fault.campaign.spoken import Spoken
from fault.campaign.stage import BRIDGE, PARTITIONS, NotThere, Process, Stage
from fault.campaign.stream import HEAT_MS, Plan, Point
from fault.campaign.told import windows_told

RECOVERED = 150.0
"""Seconds after which what has not recovered from a fault is a failure."""

SPOKEN = 200
"""Messages a second by MQTT, through the bridge; the publisher has the others."""

SETTLED = 45.0
"""Seconds without a new row after which nothing more is to be expected."""

Say = Callable[[str], None]


class Campaign:
    """Runs faults on a stage while the stream goes on, then compares; `result` is what it found."""

    def __init__(
        self,
        stage: Stage,
        *,
        seed: int,
        rate: int,
        workers: int,
        short: bool,
        faults: Mapping[str, Fault] = FAULTS,
        say: Say = print,
    ) -> None:
        self.stage = stage
        self.say = say
        self._faults = faults
        self._workers = workers
        self._dice = random.Random(seed)
        away = (10.0, 8.0) if short else (60.0, 30.0)
        self._setting = Setting(stage, self._dice, *away)
        self.result = Result(seed, rate, f"{workers} workers and one storing worker", time.time())
        self._sampler: Sampler
        self._plan: Plan
        self._spoken: Spoken
        self._direct = 0
        """Messages of the publisher."""

    def run(self, faults: Sequence[str], seconds: float | None = None) -> Result:
        """Cause the faults in this order, as many as begin within `seconds`, and compare."""
        stage, result = self.stage, self.result
        stage.start(self._workers)
        base = int(time.time() * 1000) + 2_000
        self._plan = Plan(base + -base % (2 * HEAT_MS), result.rate - SPOKEN)
        self._spoken = Spoken(self._plan.base, SPOKEN)
        self._publish()
        self._sampler = Sampler(stage.store_settings.store_port, self._probes())
        self._sampler.start()
        self._until_fresh("the first points", 60)
        began = time.monotonic()
        for number, fault in enumerate(faults):
            if seconds is not None and time.monotonic() - began > seconds:
                break
            self._cause(fault, f"{number + 1}/{len(faults)}")
        self._finish()
        result.seconds = time.time() - result.began
        self._compare()
        return result

    def _publish(self) -> None:
        stage, plan = self.stage, self._plan
        arguments = (f"127.0.0.1:{stage.to_kafka.port}", PARTITIONS, plan.base, plan.rate, stage.folder / "ledger")
        command = [sys.executable, "-m", "fault.campaign.publisher", *map(str, arguments)]
        stage.publisher = Process("publisher", command, {}, stage.folder)
        stage.publisher.start()
        arguments = (stage.mqtt_port, self._spoken.base, self._spoken.rate, stage.folder / "ledger-mqtt")
        command = [sys.executable, "-m", "fault.campaign.devices", *map(str, arguments)]
        stage.devices = Process("devices", command, {}, stage.folder)
        stage.devices.start()

    def _probes(self) -> list[str]:
        """Two devices of each partition that the publisher speaks for, and one that speaks for itself."""
        direct = [self._plan.points(n)[0].device for n in range(self._plan.devices)]
        spoken = [self._spoken.point(n).device for n in range(self._spoken.devices)]
        return [
            *_of_each_partition([device for device in direct if device.startswith("numbers-")], 2),
            *_of_each_partition(spoken, 1),
        ]

    def _until_fresh(self, what: str, patience: float) -> None:
        """Until what is published from now on is stored, of every partition."""
        now = max(time.time() * 1000, self._plan.base)

        def fresh() -> bool:
            for process in (self.stage.publisher, self.stage.devices):
                assert process is not None
                if not process.running:
                    raise NotThere(f"{process.name} has ended; see {process.log}")
            return self._sampler.fresh > now

        self.stage.wait(fresh, what, patience)

    def _cause(self, fault: str, place: str) -> None:
        span = Span(fault, time.time())
        self.result.spans.append(span)
        restarted = len(self.stage.restarted)
        try:
            self._faults[fault](self._setting)
        except NotThere as error:
            span.trouble = str(error)
        self._mend()
        caused = time.time() - span.began
        try:
            self._until_fresh(f"recovery from {fault}", RECOVERED)
        except NotThere as error:
            span.trouble = span.trouble or str(error)
            self._start_anew()
        time.sleep(self._dice.uniform(0.5, 2))
        span.ended = time.time()
        span.stall = self._sampler.longest_stall(span.began, span.ended)
        more = f"; {', '.join(set(self.stage.restarted[restarted:]))} began anew" if restarted < len(
            self.stage.restarted
        ) else ""  # fmt: skip
        self.say(
            f"[{place}] {fault}: {caused:.1f} s, recovered after {span.ended - span.began - caused:.1f} s, "
            f"longest stall {span.stall:.1f} s{more}" + (f"; TROUBLE: {span.trouble}" if span.trouble else "")
        )

    def _mend(self) -> None:
        """Nothing stays held broken, whatever a fault did."""
        stage = self.stage
        for proxy in (stage.to_kafka, stage.to_store):
            proxy.heal()
        for process in (stage.kafka, stage.store, *stage.workers.values()):
            process.send(signal.SIGCONT)
        while len(names := stage.names("process")) > max(self._workers, 3):
            stage.release(names[-1]).stop()
        while len(names := stage.names("store")) > 2:
            stage.release(names[-1]).stop()

    def _start_anew(self) -> None:
        """What has not recovered would spoil every fault after it: kill bridge and all workers, and go on."""
        for name in [*self.stage.names("process"), *self.stage.names("store"), BRIDGE]:
            self.stage.release(name).kill()
            self.stage.add(name)
        try:
            self._until_fresh("recovery after bridge and workers began anew", RECOVERED)
        except NotThere as error:
            self.result.troubles.append(str(error))

    def _finish(self) -> None:
        """Stop the stream, hear that all of it was acknowledged, and wait until all that follows is stored."""
        time.sleep(2)
        self._direct = self._acknowledged(self.stage.publisher, "ledger")
        self.result.spoken = self._acknowledged(self.stage.devices, "ledger-mqtt")
        self.result.published = self._direct + self.result.spoken
        self.result.points = self.result.spoken
        for _, points in self._plan.slices(self._direct):
            windows = oracle.windows_of(points)
            self.result.points += len(points)
            self.result.windows += len(windows)
            self.result.alarms += len(oracle.alarms_of(windows))
        wanted = (self.result.points, self.result.windows, self.result.alarms)
        there: tuple[int, ...] = ()
        moved = time.monotonic()
        while there != wanted and time.monotonic() - moved < SETTLED:
            time.sleep(1)
            now = tuple(self._number_of(table) for table in ("telemetry", "windows", "alarms"))
            if now != there:
                there, moved = now, time.monotonic()
        self._sampler.end()

    def _acknowledged(self, speaker: Process | None, ledger: str) -> int:
        """Stop one that speaks; how many messages it said, each of which was acknowledged to it. NotThere: not all."""
        assert speaker is not None
        speaker.stop(60)
        last = json.loads(speaker.log.read_text().splitlines()[-1])
        if not last.get("finished"):
            raise NotThere(f"{speaker.name} has not finished")
        count = int(last["sent"])
        if absent := missing(Ledger.read(self.stage.folder / ledger), count):
            raise NotThere(f"{speaker.name}: {len(absent)} messages were never acknowledged")
        return count

    def _number_of(self, table: str) -> int:
        return int(self.stage.rows(f"SELECT count() FROM {table}")[0][0])

    def _compare(self) -> None:
        findings, told = self.result.findings, windows_told(self.stage.direct, PARTITIONS)
        findings += oracle.compare_told(told)
        findings += self._compare_heard()
        known = 0
        slices = [self._plan.slices(self._direct), self._spoken.slices(self.result.spoken)]
        for prefix, points in itertools.chain(*slices):
            where = f"startsWith(device, '{prefix}')" if prefix.endswith("-") else f"device = '{prefix}'"
            stored = [Point(*row) for row in self._rows("telemetry", "device, key, {ts}, number", where)]
            known += len(stored)
            findings += oracle.compare_points(points, stored)
            columns = "window, device, key, {start}, value, count"
            findings += oracle.compare_windows(
                points, (oracle.WindowRow(*row) for row in self._rows("windows", columns, where))
            )
            for table, size in (("telemetry_minute", 60_000), ("telemetry_hour", 3_600_000)):
                columns = "device, key, {ts}, count, sum, min, max"
                rows = (oracle.RollupRow(*row) for row in self._rows(table, columns, where))
                findings += oracle.compare_rollups(points, size, rows)
            if prefix.startswith("heat-"):
                alarms = self._rows("alarms", "device, details", where)
                findings += oracle.compare_alarms(points, [_alarm(*row) for row in alarms])
        for table, expected in (("telemetry", known), ("dead_letters", 0)):
            if (count := self._number_of(table)) != expected:
                self.result.troubles.append(f"{table} has {count} rows, of which {expected} are of this stream")

    def _compare_heard(self) -> list[oracle.Finding]:
        """What the bridge took: once in the decoded topic for each time that a device said it."""
        found = heard(self.stage.direct, PARTITIONS)
        self.result.retried, self.result.resent = found.retried, found.resent
        return oracle.compare_heard(
            {n: self._spoken.point(n) for n in range(self.result.spoken)},
            {n: len(sessions) for n, sessions in found.connections.items()},
            {n: len(origins) for n, origins in found.told.items()},
        )

    def _rows(self, table: str, columns: str, where: str) -> list[tuple[Any, ...]]:
        times = {name: f"toUnixTimestamp64Milli(t.{name})" for name in ("ts", "start")}
        return self.stage.rows(f"SELECT {columns.format(**times)} FROM {table} AS t WHERE {where}")


def _of_each_partition(devices: Sequence[str], count: int) -> list[str]:
    found: dict[int, list[str]] = defaultdict(list)
    for device in devices:
        found[(murmur2(device.encode()) & 0x7FFFFFFF) % PARTITIONS].append(device)
    return [device for some in found.values() for device in some[:count]]


def _alarm(device: str, details: str) -> oracle.AlarmRow:
    told = json.loads(details)
    return oracle.AlarmRow(device, told["raised"]["start"], told["cleared"]["start"] if "cleared" in told else None)


def order(seed: int, names: Sequence[str], times: int) -> list[str]:
    """Each fault so many times, in the seed's order."""
    faults = [name for name in names for _ in range(times)]
    random.Random(seed).shuffle(faults)
    return faults
