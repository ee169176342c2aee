"""Who speaks: the device number of a publish, and who vouches for it (docs/protocol.md, Identity). Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tpstream.bus.envelope import Identity, Refusal, WayIn
from tpstream.errors import ConfigurationError
from tpstream.uplink import dialects
from tpstream.uplink.dialects import What

SETTING = "TPSTREAM_TRUSTED_IDENTITY"
PREFIX = "up/"
"""What a broker's plug-in puts before the device number and the topic."""

# Asked of every publish, nearly always about what was asked before.
address = lru_cache(maxsize=100_000)(dialects.address)
valid_number = lru_cache(maxsize=100_000)(dialects.valid_number)

_OF_WAY = {WayIn.ENDPOINT: ("login", "topic"), WayIn.BROKER: ("prefix", "topic")}
_KNOWN = ("login", "prefix", "topic", "envelope")


class Trust(NamedTuple):
    """Which sources of identity a deployment trusts."""

    login: bool = False
    prefix: bool = False
    topic: bool = False

    @classmethod
    def parse(cls, text: str, way_in: WayIn) -> Trust:
        """Read TPSTREAM_TRUSTED_IDENTITY. ConfigurationError: unknown source, or none that this way in has."""
        names = [name for part in text.split(",") if (name := part.strip())]
        for name in names:
            if name not in _KNOWN:
                raise ConfigurationError(f"{SETTING}={text!r}: {name!r} is none of {', '.join(_KNOWN)}")
        if "envelope" in names:
            raise ConfigurationError(f"{SETTING}={text!r}: envelope is not supported yet; use prefix or topic")
        if not any(name in _OF_WAY[way_in] for name in names):
            of_way = " or ".join(_OF_WAY[way_in])
            raise ConfigurationError(
                f"{SETTING}={text!r}: nothing in it tells who publishes on the way in "
                f"`{way_in.name.lower()}`; name {of_way} there"
            )
        return cls("login" in names, "prefix" in names, "topic" in names)


class Resolved(NamedTuple):
    """Whose publish it is. `device` is empty where that is unknown or not to be believed."""

    device: str
    identity: Identity
    refusal: Refusal
    topic: str
    """The device's topic, without the plug-in's prefix."""


def resolve(trust: Trust, way_in: WayIn, login: str | None, topic: str) -> Resolved:
    """Whose publish on `topic` is, from a connection with that trusted login (None: without)."""
    if way_in is WayIn.BROKER and trust.prefix and topic.startswith(PREFIX):
        number, _, rest = topic[len(PREFIX) :].partition("/")
        return _spoken(number if valid_number(number) else None, Identity.PREFIX, rest)
    if login is not None:
        return _spoken(login, Identity.LOGIN, topic)
    named = address(topic)
    if named is None:
        return Resolved("", Identity.NONE, Refusal.TOPIC, topic)
    if not trust.topic or not named.device or named.what is What.STATUS:
        return Resolved("", Identity.NONE, Refusal.IDENTITY, topic)
    return Resolved(named.device, Identity.TOPIC, Refusal.NONE, topic)


def _spoken(speaker: str | None, identity: Identity, topic: str) -> Resolved:
    """The verdict where we know who speaks: a topic that names another is refused, and so is one's own status."""
    if speaker is None:
        return Resolved("", Identity.NONE, Refusal.IDENTITY, topic)
    named = address(topic)
    if named is None:
        return Resolved(speaker, identity, Refusal.TOPIC, topic)
    if named.what is What.STATUS or named.device not in ("", speaker):
        return Resolved("", identity, Refusal.IDENTITY, topic)
    return Resolved(speaker, identity, Refusal.NONE, topic)
