"""`tpstream topics`: the topics of the Kafka broker, and what goes by on one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiokafka
import click
from aiokafka.errors import KafkaError

from tpstream.bus import topics as declared
from tpstream.bus.envelope import header
from tpstream.bus.provision import connect
from tpstream.cli import output
from tpstream.cli.context import json_option, pass_settings
from tpstream.devices.journal import REMEDY, reach, reason
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable
from tpstream.settings import Settings

SECONDS = 15.0


@click.command()
@click.option(
    "--tail", metavar="NAME", help="Follow a topic; `windows` is short for tp.windows.v1, `pumps` for pumps.v1."
)
@click.option(
    "--last", default=10, show_default=True, type=click.IntRange(0), help="Records per partition to begin with."
)
@click.option("--once", is_flag=True, help="With --tail: stop at the end instead of waiting for more.")
@json_option
@pass_settings
def topics(settings: Settings, tail: str | None, last: int, once: bool, as_json: bool) -> None:
    """The topics with their partitions and end offsets; follow one with --tail until Ctrl+C.

    Kafka's own, whose names begin with __, are left out of the list.
    """
    if tail is None:
        asyncio.run(_list(settings, as_json))
    else:
        asyncio.run(_tail(settings, tail, last, once, as_json))


async def _list(settings: Settings, as_json: bool) -> None:
    async with _consumer(settings) as consumer:
        ends: dict[str, dict[int, int]] = {}
        existing = await _existing(settings)
        places = [place for name, some in existing.items() if not name.startswith("__") for place in some]
        for place, end in (await _ends(consumer, places)).items():
            ends.setdefault(place.topic, {})[place.partition] = end
    if as_json:
        output.as_json(
            {name: {str(n): end for n, end in sorted(found.items())} for name, found in sorted(ends.items())}
        )
        return
    output.table(
        ("topic", "partitions", "written", "end offsets"),
        (
            (name, len(found), sum(found.values()), " ".join(str(end) for _, end in sorted(found.items())))
            for name, found in sorted(ends.items())
        ),
    )


async def _tail(settings: Settings, short: str, last: int, once: bool, as_json: bool) -> None:
    async with _consumer(settings) as consumer:
        existing = await _existing(settings)
        ends = await _ends(consumer, existing[_named(short, existing)])
        for place, end in ends.items():
            consumer.seek(place, max(0, end - last))
        while True:
            fetched = await consumer.getmany(timeout_ms=500)
            records = sorted((r for some in fetched.values() for r in some), key=lambda r: (r.timestamp, r.offset))
            for record in records:
                click.echo(_as_json(record) if as_json else _as_line(record))
            if once and all([await consumer.position(place) >= end for place, end in ends.items()]):
                return


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[Any]:
    """A consumer without a group. Unavailable where Kafka does not answer."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=200,
        request_timeout_ms=10_000,
    )
    try:
        async with asyncio.timeout(SECONDS):
            await reach(settings)
            await consumer.start()
        yield consumer
    except (KafkaError, TimeoutError, OSError) as error:
        raise Unavailable(f"Kafka at {settings.bootstrap} does not answer ({reason(error)}); {REMEDY}") from None
    finally:
        await consumer.stop()


async def _existing(settings: Settings) -> dict[str, list[Any]]:
    """The partitions of each topic that has some, from the broker: a consumer knows only those of its own topics."""
    admin = await connect(settings.bootstrap, SECONDS)
    try:
        found = await admin.describe_topics()
    finally:
        await admin.close()
    places = {
        topic["topic"]: [aiokafka.TopicPartition(topic["topic"], one["partition"]) for one in topic["partitions"]]
        for topic in found
    }
    return {name: some for name, some in places.items() if some}


async def _ends(consumer: Any, places: list[Any]) -> dict[Any, int]:
    """The end of each partition: the high watermark of a fetch near the end.

    ListOffsets alone is too low on the embedded broker where the last batch holds several records.
    """
    if not places:
        return {}
    consumer.assign(places)
    async with asyncio.timeout(SECONDS):
        for place, offset in (await consumer.end_offsets(places)).items():
            consumer.seek(place, offset)
        while missing := [place for place in places if consumer.highwater(place) is None]:
            await consumer.getmany(*missing, timeout_ms=200, max_records=1)
    return {place: consumer.highwater(place) for place in places}


def _named(short: str, existing: Container[str]) -> str:
    """The topic meant by `uplink.raw`, `tp.uplink.raw` or the whole name."""
    found = next((name for name in (short, f"tp.{short}.v1", f"{short}.v1") if name in existing), None)
    if found is None:
        raise ConfigurationError(f"there is no topic {short!r}; `tpstream topics` lists them")
    return found


def _value(record: Any) -> Any:
    """The record's value: decoded where it is JSON, else its text, else hex."""
    if record.value is None:
        return None
    try:
        topic = declared.by_name(record.topic)
        if topic.decoder is not None and _kind(record) in ("", "publish"):  # ticks and configuration say other things
            topic.decode(record.value)  # says what is wrong with it
    except KeyError:
        pass
    except TpstreamError as error:
        return f"cannot be read: {error}"
    try:
        return json.loads(record.value)
    except ValueError:
        pass
    try:
        return record.value.decode()
    except UnicodeDecodeError:
        return f"0x{record.value.hex()}"


def _kind(record: Any) -> str:
    """What the header `tp` says the record is; empty where there is none."""
    from tpstream.bus.batch import kind_of

    if header(record.headers, "tp") is None:
        return ""
    try:
        return kind_of(record).name.lower()
    except TpstreamError:
        return "unknown"


def _as_json(record: Any) -> str:
    mqtt = header(record.headers, "topic")
    return json.dumps(
        {
            "partition": record.partition,
            "offset": record.offset,
            "ts": record.timestamp,
            "key": (record.key or b"").decode(errors="replace"),
            "kind": _kind(record),
            **({"topic": mqtt.decode(errors="replace")} if mqtt else {}),
            "value": _value(record),
        },
        ensure_ascii=False,
    )


def _as_line(record: Any) -> str:
    stamp = datetime.fromtimestamp(record.timestamp / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    mqtt = header(record.headers, "topic")
    value = _value(record)
    text = value if isinstance(value, str) else "(deleted)" if value is None else json.dumps(value, ensure_ascii=False)
    words = [f"{record.partition}-{record.offset}", stamp, (record.key or b"").decode(errors="replace"), _kind(record)]
    words.append(mqtt.decode(errors="replace") if mqtt else "")
    return output.cell("  ".join(word for word in (*words, text) if word), 2_000)
