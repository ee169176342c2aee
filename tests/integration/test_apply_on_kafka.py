"""`apply` on the embedded broker, and catalogs that follow it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from parts.kafka import Kafka

from tpstream.bus import topics
from tpstream.devices import journal
from tpstream.devices.catalog import Catalog
from tpstream.devices.follower import AWAY_SECONDS, LIFE_SECONDS
from tpstream.devices.publish import apply
from tpstream.errors import ConfigurationError, Unavailable
from tpstream.messages import Device
from tpstream.settings import Settings

pytestmark = pytest.mark.kafka

RULE = "rule: {name}\nwindow: mean_10s\nraise: {{above: {above}}}\nclear: {{below: 20}}\n"


def folder(path: Path, app: str, above: int = 30, pattern: str = "*", **more: str) -> Path:
    """An application with a profile, a rule and a window of its own; `more`: further files."""
    files = {
        "app.toml": f'name = "{app}"\npackage = "{app}_py"\n',
        f"{app}_py/__init__.py": 'from tpstream import app\n\napp.window("mean_10s", key="t", size="10s")\n',
        f"profiles/{app}.yaml": f'name: {app}\ndevices: ["{app}-{pattern}"]\n',
        f"rules/{app}.yaml": RULE.format(name=app, above=above),
        **more,
    }
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return path


@asynccontextmanager
async def following(settings: Settings) -> AsyncIterator[Catalog]:
    catalog = Catalog(settings)
    await asyncio.wait_for(catalog.start(), 20)
    try:
        yield catalog
    finally:
        await catalog.stop()


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """How long it took until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def written(settings: Settings) -> dict[str, list[str]]:
    """The keys of every record in the configuration topics."""
    import aiokafka

    from tpstream.bus.reader import read_to_end

    keys: dict[str, list[str]] = {}
    places = {aiokafka.TopicPartition(t.name, 0): 0 for t in topics.all_topics() if t.name.startswith("tp.config.")}
    async for place, records in read_to_end(settings.bootstrap, places):
        keys.setdefault(place.topic, []).extend((r.key or b"").decode() for r in records)
    return keys


async def test_only_what_changed_is_published_and_nothing_twice(kafka: Kafka, tmp_path: Path) -> None:
    settings = kafka.settings()
    directory = folder(tmp_path, "once")
    first = await apply(settings, directory)
    assert str(first).splitlines()[1:] == ["  + profiles/once", "  + rules/once"]
    before = await written(settings)
    again = await apply(settings, directory)
    assert again.nothing
    assert again.version == first.version
    assert await written(settings) == before

    folder(tmp_path, "once", above=31)
    changed = await apply(settings, directory)
    assert (changed.kinds["rules"].changed, changed.kinds["profiles"].same) == (("once",), ("once",))
    after = await written(settings)
    assert after["tp.config.profiles.v1"] == before["tp.config.profiles.v1"]
    assert len(after["tp.config.rules.v1"]) == len(before["tp.config.rules.v1"]) + 1
    assert after["tp.config.releases.v1"][-2:] == [f"once@{changed.version}", "once"]

    (tmp_path / "rules/once.yaml").unlink()
    assert (await apply(settings, directory)).kinds["rules"].removed == ("once",)

    folder(tmp_path, "once", above=30)
    back = await apply(settings, directory)
    assert back.version == first.version
    assert (await written(settings))["tp.config.releases.v1"][-1] == "once"
    assert (await journal.read(settings)).in_force["once"].version == first.version


async def test_a_refused_application_publishes_nothing(kafka: Kafka, tmp_path: Path) -> None:
    settings = kafka.settings()
    directory = folder(tmp_path, "refused")
    (directory / "rules/bad.yaml").write_text(RULE.format(name="bad", above="hot"))
    before = await written(settings)
    with pytest.raises(ConfigurationError, match=r"rules/bad.yaml:3: field raise.above: must be a number"):
        await apply(settings, directory)
    assert await written(settings) == before


async def test_one_name_belongs_to_one_application(kafka: Kafka, tmp_path: Path) -> None:
    settings = kafka.settings()
    await apply(settings, folder(tmp_path / "a", "mine"))
    other = folder(tmp_path / "b", "theirs", **{"rules/x.yaml": RULE.format(name="mine", above=30)})
    before = await written(settings)
    with pytest.raises(ConfigurationError, match=r"rules/x.yaml: 'mine' is in force from the application mine"):
        await apply(settings, other)
    assert await written(settings) == before


async def test_a_change_is_live_within_a_second(kafka: Kafka, tmp_path: Path) -> None:
    settings = kafka.settings()
    async with following(settings) as catalog:
        calls: list[str] = []
        catalog.on_change.append(lambda: calls.append(catalog.release_version))
        for above in (30, 40):
            changes = await apply(settings, folder(tmp_path, "live", above=above))
            await until(lambda: f"live@{changes.version}" in catalog.release_version, 1.0)  # noqa: B023
        assert calls
        assert catalog.profile_of("live-1").name == "live"
        assert catalog.available

        await journal.write(settings, [(topics.config_devices, "live-1", Device("live-1", "default"))])
        await until(lambda: catalog.known("live-1"), 1.0)
        assert catalog.profile_of("live-1").name == "default"
        await journal.write(settings, [(topics.config_devices, "live-1", None)])
        await until(lambda: not catalog.known("live-1"), 1.0)

        async with following(settings) as late:  # a worker that starts now knows the same
            assert late.release_version == catalog.release_version
            assert late.releases == catalog.releases
    before = catalog.release_version
    await apply(settings, folder(tmp_path, "live", above=50))
    assert catalog.release_version == before, "a stopped catalog still answers"


async def test_a_new_life_is_read_from_its_beginning_and_nothing_is_forgotten(
    fresh_kafka: Kafka, tmp_path: Path
) -> None:
    settings = fresh_kafka.settings()
    await apply(settings, folder(tmp_path / "a", "old"))
    async with following(settings) as catalog:
        old = catalog.release_version
        fresh_kafka.restart()
        # As many records and more than were read in the old life: no offset is out of range.
        for n in range(4):
            await apply(settings, folder(tmp_path / "b", "new", above=30 + n))

        def releases() -> int:
            return len([one for one in catalog.releases if one.startswith("new@")])

        await until(lambda: releases() == 4, LIFE_SECONDS + 10)
        assert catalog.profile_of("new-1").name == "new"
        assert old in catalog.release_version, "what is known is kept"


async def test_an_outage_of_kafka_is_waited_out(fresh_kafka: Kafka, tmp_path: Path) -> None:
    settings = fresh_kafka.settings()
    async with following(settings) as catalog:
        fresh_kafka.pause()
        await until(lambda: not catalog.available, AWAY_SECONDS + 5)
        assert catalog.profile_of("d1").name == "default"
        fresh_kafka.go_on()
        await until(lambda: catalog.available, 30)
        await apply(settings, folder(tmp_path, "after"))
        await until(lambda: "after@" in catalog.release_version, 1.0)
        fresh_kafka.pause()
        await asyncio.wait_for(catalog.stop(), 5)  # an orderly stop does not need Kafka


async def test_a_catalog_waits_for_kafka_and_can_be_stopped_while_it_waits(fresh_kafka: Kafka, tmp_path: Path) -> None:
    settings = fresh_kafka.settings()
    fresh_kafka.kill()
    waiting = Catalog(settings)
    start = asyncio.create_task(waiting.start())
    await asyncio.sleep(0.5)
    assert not start.done()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start

    catalog = Catalog(settings)
    start = asyncio.create_task(catalog.start())
    await asyncio.to_thread(fresh_kafka.start)
    await asyncio.wait_for(start, 20)
    await catalog.stop()


async def test_without_kafka_apply_gives_up_in_time(fresh_kafka: Kafka, tmp_path: Path) -> None:
    settings = fresh_kafka.settings()
    directory = folder(tmp_path, "away")
    for break_it in (fresh_kafka.pause, fresh_kafka.kill):
        break_it()
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"Kafka at 127.0.0.1:\d+ .*start `tpstream up`"):
            await apply(settings, directory)
        assert time.monotonic() - began < journal.SECONDS + 5
