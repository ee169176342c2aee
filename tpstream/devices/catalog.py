"""What was applied and who is registered, as every worker knows it: followed from the
configuration topics, asked from memory (a look-up costs a fraction of a microsecond).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tpstream.bus import topics
from tpstream.devices.follower import Follower
from tpstream.devices.profiles import Profile
from tpstream.devices.release import Documents, View, combined, identity
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable
from tpstream.messages import Device, Release
from tpstream.rules.definition import Rule
from tpstream.settings import Settings

log = logging.getLogger(__name__)

KEPT_VIEWS = 16
"""Old releases that are held ready at once; a replay over more builds them again."""

FOLLOWED = (
    topics.config_profiles,
    topics.config_scripts,
    topics.config_rules,
    topics.config_releases,
    topics.config_devices,
)


class Catalog:
    """Devices, profiles, scripts and rules.

    A release comes into force as a whole, once all of its documents have been read. One
    that this version of tpstream cannot read does not: what runs stays, with an error in the log.
    """

    def __init__(self, settings: Settings) -> None:
        self.on_change: list[Callable[[], None]] = []
        """Called after something was taken that changed what is in force, or a device."""
        self.releases: dict[str, Release] = {}
        """Every release read so far, by app@version."""
        self.in_force: dict[str, Release] = {}
        """By application."""
        self.present: object = object()
        """Another one whenever an answer may have changed: what was looked up under this one still holds."""
        self.release_version = ""
        """What is in force of all applications as one text; empty: nothing was ever applied."""
        self._documents = Documents()
        self._devices: dict[str, Device] = {}
        self._current = View((), self._documents)
        self._views: dict[str, View] = {"": self._current}
        self._waiting: dict[str, Release | None] = {}
        self._by_topic = {
            topics.config_profiles.name: self._documents.profiles,
            topics.config_scripts.name: self._documents.scripts,
            topics.config_rules.name: self._documents.rules,
        }
        self._follower = Follower(settings.bootstrap, [topic.name for topic in FOLLOWED], self.take_records)

    async def start(self) -> None:
        """Read everything there is, waiting for Kafka as long as it takes; then follow."""
        await self._follower.start()

    async def stop(self) -> None:
        """Stop following; what was read can still be asked."""
        await self._follower.stop()

    @property
    def available(self) -> bool:
        """Whether the configuration topics are being followed at present."""
        return self._follower.available

    # Asking

    @property
    def release(self) -> Release | None:
        """The newest release in force, of whichever application; None: nothing was ever applied."""
        return max(self.in_force.values(), key=lambda release: release.created_at, default=None)

    def profile_of(self, device: str, version: str | None = None) -> Profile:
        """A device's profile in that `release_version` (None: the present one).

        The one that its registration names, else the one whose pattern matches, else plain JSON.
        Raises Unavailable where that version has not been read (yet).
        """
        view = self._current if version is None else self._views.get(version) or self._view(version)
        profile = view.remembered.get(device)
        if profile is not None:
            return profile
        registered = self._devices.get(device)
        return view.find(device, registered.profile if registered is not None else "")

    def profiles(self, version: str | None = None) -> Mapping[str, Profile]:
        """All profiles by name, the built-in one among them. Raises Unavailable as `profile_of`."""
        return (self._current if version is None else self._views.get(version) or self._view(version)).profiles

    def rules(self, version: str | None = None) -> tuple[Rule, ...]:
        """The rules, sorted by name. Raises Unavailable as `profile_of`."""
        return (self._current if version is None else self._views.get(version) or self._view(version)).rules

    def known(self, device: str) -> bool:
        """Whether the device is registered."""
        return device in self._devices

    def device(self, number: str) -> Device | None:
        """A registered device, or None."""
        return self._devices.get(number)

    def devices(self) -> Collection[Device]:
        """All registered devices; a live view, do not keep it across an await."""
        return self._devices.values()

    def holds(self, topic: str, key: str) -> bool:
        """Whether a version of a document (name@version) has been read from that topic."""
        return key in self._by_topic[topic]

    # Learning

    def take(self, topic: str, key: str, value: bytes | None) -> bool:
        """Take one record of a configuration topic in; whether it says anything new.

        A release waits for `settle`. TpstreamError where the record cannot be read.
        """
        if topic == topics.config_devices.name:
            return self._take_device(key, None if value is None else topics.config_devices.decode(value))
        if topic == topics.config_releases.name:
            return self._take_release(key, None if value is None else topics.config_releases.decode(value))
        documents = self._by_topic[topic]
        if value is None or key in documents:  # a version never changes, and stays for replays
            return False
        documents[key] = topics.by_name(topic).decode(value)
        return True

    def settle(self) -> bool:
        """Put the releases that are complete into force; whether that changed anything."""
        before = self.release_version
        for app, release in list(self._waiting.items()):
            if release is None:
                self.in_force.pop(app, None)
            elif missing := self._documents.missing(release):
                log.warning("release %s waits for %s", identity(release), missing[0])
                continue
            elif not self._is_readable(release):
                pass
            else:
                self.in_force[app] = release
            del self._waiting[app]
        self.release_version = combined(self.in_force.values())
        if self.release_version == before:
            return False
        self.present = object()
        self._current = self._views[self.release_version] = View(self.in_force.values(), self._documents)
        self._forget_views()
        log.info("in force: %s", self.release_version or "nothing")
        return True

    def _take_device(self, number: str, device: Device | None) -> bool:
        before = self._devices.get(number)
        if device is None:
            self._devices.pop(number, None)
        else:
            # The same text as key and in the value, of each of many devices.
            self._devices.pop(number, None)
            self._devices[device.device if device.device == number else number] = device
        if before == device:
            return False
        self.present = object()
        for view in self._views.values():
            view.remembered.pop(number, None)
        return True

    def _take_release(self, key: str, release: Release | None) -> bool:
        """Key `app`: what is in force from now on; key `app@version`: what may be asked for in a replay."""
        if release is not None:
            self.releases[identity(release)] = release
        if "@" not in key:
            self._waiting[key] = release
        return True

    def _is_readable(self, release: Release) -> bool:
        try:
            View([release], self._documents)
        except ConfigurationError as error:
            log.error("release %s is not taken, what runs stays: %s", identity(release), error)
            return False
        return True

    def _view(self, version: str) -> View:
        releases = [self.releases.get(one) for one in version.split("+")]
        known = [release for release in releases if release is not None]
        missing = [document for release in known for document in self._documents.missing(release)]
        if len(known) < len(releases) or missing:
            what = missing[0] if missing else version
            raise Unavailable(f"configuration {what} was not read yet; is it in the tp.config topics?")
        try:
            view = self._views[version] = View(known, self._documents)
        except ConfigurationError as error:
            raise Unavailable(f"configuration {version} cannot be read by this tpstream: {error}") from None
        self._forget_views()
        return view

    def _forget_views(self) -> None:
        """Drop the oldest views beyond the bound, never the present one nor the empty one."""
        for version in list(self._views):
            if len(self._views) <= KEPT_VIEWS:
                return
            if version not in ("", self.release_version):
                del self._views[version]

    def take_records(self, records: Sequence[Any], complete: bool) -> None:
        """Take Kafka records in; `complete`: with them everything present was read, so releases may switch."""
        changed = False
        for record in records:
            try:
                new = self.take(record.topic, (record.key or b"").decode(), record.value)
                # Documents and releases mean nothing before they are in force.
                changed |= new and record.topic == topics.config_devices.name
            except (TpstreamError, UnicodeDecodeError) as error:
                log.error("%s offset %d is passed over: %s", record.topic, record.offset, error)
        # A half-read log may name a release that a later record replaces.
        if complete:
            changed |= self.settle()
        if changed:
            for call in self.on_change:
                call()
