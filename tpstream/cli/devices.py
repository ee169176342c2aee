"""`tpstream devices`: who is registered."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import click
import msgspec

from tpstream.bus import topics
from tpstream.cli import output
from tpstream.cli.context import json_option, pass_settings
from tpstream.devices import journal
from tpstream.devices.catalog import Catalog
from tpstream.errors import ConfigurationError, TpstreamError
from tpstream.messages import Device
from tpstream.settings import Settings
from tpstream.uplink.dialects import valid_number


@click.group(invoke_without_command=True)
@click.pass_context
def devices(context: click.Context) -> None:
    """List, show, add and remove devices. A change is live within a second. Without COMMAND: list."""
    if context.invoked_subcommand is None:
        context.invoke(list_)


@devices.command(name="list")
@json_option
@pass_settings
def list_(settings: Settings, as_json: bool) -> None:
    """All registered devices, by number."""
    catalog = asyncio.run(journal.read(settings))
    found = sorted(catalog.devices(), key=lambda device: device.device)
    if as_json:
        output.as_json([_described(catalog, device) for device in found])
        return
    output.table(
        ("device", "profile", "tenant", "registered", "by"),
        ((d.device, catalog.profile_of(d.device).name, d.tenant, _when(d.created_at), _by(d)) for d in found),
    )


@devices.command()
@click.argument("number")
@json_option
@pass_settings
def show(settings: Settings, number: str, as_json: bool) -> None:
    """One device, its profile and its scripts."""
    catalog = asyncio.run(journal.read(settings))
    device = _registered(catalog, number)
    if as_json:
        output.as_json(_described(catalog, device))
        return
    profile = catalog.profile_of(number)
    why = "named at registration" if device.profile == profile.name else "by its number"
    lines = {
        "device": number,
        "tenant": device.tenant,
        "registered": f"{_when(device.created_at)} {_by(device)}",
        "profile": f"{profile.name} ({'built in' if not profile.version else why})",
        **{f"script {letter}": script.id for letter, script in sorted(profile.scripts.items())},
    }
    if device.profile and device.profile != profile.name:
        lines["note"] = f"its own profile {device.profile!r} is not in force"
    for name, value in lines.items():
        click.echo(f"{name:<12}{value}")


@devices.command()
@click.argument("numbers", metavar="NUMBER…", nargs=-1, required=True)
@click.option("--profile", default="", help="The profile; else the one whose pattern matches.")
@click.option("--tenant", default=None, help="The tenant.  [default: TPSTREAM_TENANT]")
@pass_settings
def add(settings: Settings, numbers: tuple[str, ...], profile: str, tenant: str | None) -> None:
    """Register devices; a number that is there already takes the new profile and tenant."""
    for number in numbers:
        if not valid_number(number):
            raise ConfigurationError(
                f"{number!r} is no device number; use 1 to 128 bytes without '/', '+', '#', not beginning with '$', "
                "and no word of the topics"
            )
    asyncio.run(_add(settings, numbers, profile, tenant))
    click.echo(f"registered: {', '.join(numbers)}")


@devices.command()
@click.argument("numbers", metavar="NUMBER…", nargs=-1, required=True)
@pass_settings
def remove(settings: Settings, numbers: tuple[str, ...]) -> None:
    """Take devices out of the registry; what they sent stays stored.

    Where TPSTREAM_REGISTER_ON_FIRST_SIGHT is on, the next message registers them again.
    """
    asyncio.run(_remove(settings, numbers))
    click.echo(f"removed: {', '.join(numbers)}")


async def _add(settings: Settings, numbers: tuple[str, ...], profile: str, tenant: str | None) -> None:
    catalog = await journal.read(settings)
    if profile and profile not in catalog.profiles():
        raise ConfigurationError(
            f"profile {profile!r} is not in force; there are {', '.join(sorted(catalog.profiles()))}"
        )
    now = time.time_ns() // 1_000_000
    entries: list[journal.Entry] = []
    for number in dict.fromkeys(numbers):
        before = catalog.device(number)
        created_at = before.created_at if before else now
        entry = Device(number, profile, tenant or (before.tenant if before else settings.tenant), created_at)
        if entry != before:
            entries.append((topics.config_devices, number, entry))
    await journal.write(settings, entries)


async def _remove(settings: Settings, numbers: tuple[str, ...]) -> None:
    catalog = await journal.read(settings)
    for number in numbers:
        _registered(catalog, number)
    await journal.write(settings, [(topics.config_devices, number, None) for number in dict.fromkeys(numbers)])


def _registered(catalog: Catalog, number: str) -> Device:
    device = catalog.device(number)
    if device is None:
        raise TpstreamError(f"device {number!r} is not registered; `tpstream devices list` shows who is")
    return device


def _described(catalog: Catalog, device: Device) -> dict[str, object]:
    profile = catalog.profile_of(device.device)
    scripts = {letter: script.id for letter, script in profile.scripts.items()}
    return {
        **msgspec.structs.asdict(device),
        "profile": profile.name,
        "profile_version": profile.version,
        "scripts": scripts,
    }


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if ms else ""


def _by(device: Device) -> str:
    return "on first sight" if device.first_seen else "by a person"
