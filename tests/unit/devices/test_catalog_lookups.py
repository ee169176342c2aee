"""The catalog, fed by hand: what is in force when, and what it knows of a device."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tpstream.bus import topics
from tpstream.devices import release as releases
from tpstream.devices.catalog import KEPT_VIEWS, Catalog
from tpstream.devices.release import content_version, release_content_version
from tpstream.errors import TpstreamError, Unavailable
from tpstream.messages import Device, Document, Release
from tpstream.settings import Settings

RULE = """\
rule: hot
window: mean
raise: {above: %d}
clear: {below: 20}
"""


class Publisher:
    """Writes to a catalog what `apply` writes to Kafka."""

    def __init__(self, app: str = "demo") -> None:
        self.app = app
        self.time = 0

    def records(
        self,
        profiles: dict[str, str] | None = None,
        scripts: dict[str, str] | None = None,
        rules: dict[str, str] | None = None,
    ) -> tuple[list[tuple[str, str, bytes]], Release]:
        out = []
        names: dict[str, dict[str, str]] = {}
        for kind, topic, texts in (
            ("profiles", topics.config_profiles, profiles),
            ("scripts", topics.config_scripts, scripts),
            ("rules", topics.config_rules, rules),
        ):
            names[kind] = {name: content_version(text) for name, text in (texts or {}).items()}
            for name, text in (texts or {}).items():
                key = f"{name}@{names[kind][name]}"
                out.append((topic.name, key, topic.encode(Document(name, names[kind][name], text, f"{kind}/{name}"))))
        self.time += 1
        release = Release(self.app, release_content_version(**names), self.time, **names)
        data = topics.config_releases.encode(release)
        out.append((topics.config_releases.name, f"{release.app}@{release.version}", data))
        out.append((topics.config_releases.name, release.app, data))
        return out, release

    def publish(self, catalog: Catalog, **texts: dict[str, str]) -> str:
        records, _ = self.records(**texts)
        for record in records:
            catalog.take(*record)
        catalog.settle()
        return catalog.release_version


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(Settings())


def profile(name: str, pattern: str, script: str = "") -> str:
    return f'name: {name}\ndevices: ["{pattern}"]\n' + (f"scripts: {{A: {script}}}\n" if script else "")


def register(catalog: Catalog, number: str, profile: str = "") -> bool:
    value = topics.config_devices.encode(Device(number, profile))
    return catalog.take(topics.config_devices.name, number, value)


def test_before_anything_is_applied_every_device_speaks_plain_json(catalog: Catalog) -> None:
    assert catalog.release is None
    assert catalog.release_version == ""
    assert catalog.profile_of("d1").name == "default"
    assert catalog.profile_of("d1", "").scripts == {}
    assert catalog.rules() == ()
    assert not catalog.known("d1")


def test_a_release_comes_into_force_with_its_last_document(catalog: Catalog) -> None:
    records, release = Publisher().records(
        profiles={"soil": profile("soil", "d*", "a.lua")}, scripts={"a.lua": "return 1"}
    )
    for record in reversed(records):  # topics are read in no particular order
        assert catalog.release is None
        catalog.take(*record)
        catalog.settle()
    assert catalog.release == release
    assert catalog.release_version == f"demo@{release.version}"
    found = catalog.profile_of("d1")
    assert found.name == "soil"
    script = found.scripts["A"]
    assert (script.name, script.source, script.id) == ("a.lua", "return 1", f"a.lua@{content_version('return 1')}")


def test_a_replay_asks_for_the_version_that_was_in_force(catalog: Catalog) -> None:
    publisher = Publisher()
    first = publisher.publish(catalog, profiles={"soil": profile("soil", "d*")}, rules={"hot": RULE % 30})
    second = publisher.publish(catalog, profiles={"dirt": profile("dirt", "d*")}, rules={"hot": RULE % 40})
    assert catalog.profile_of("d1").name == catalog.profile_of("d1", second).name == "dirt"
    assert catalog.profile_of("d1", first).name == "soil"
    assert catalog.rules(first)[0].raise_when.above == 30
    assert catalog.rules()[0].raise_when.above == 40


def test_applications_stand_side_by_side_and_their_combination_has_a_name(catalog: Catalog) -> None:
    one, two = Publisher("one"), Publisher("two")
    alone = one.publish(catalog, profiles={"a": profile("a", "a*")})
    both = two.publish(catalog, profiles={"b": profile("b", "b*")})
    assert both.split("+") == [alone, f"two@{catalog.in_force['two'].version}"]
    assert (catalog.profile_of("a1").name, catalog.profile_of("b1").name) == ("a", "b")
    assert catalog.profile_of("b1", alone).name == "default"
    # Another worker, that never saw this combination in force, takes it apart.
    fresh = Catalog(Settings())
    for publisher, name in ((Publisher("two"), "b"), (Publisher("one"), "a")):
        publisher.publish(fresh, profiles={name: profile(name, f"{name}*")})
    assert fresh.profile_of("a1", both).name == "a"


def test_a_version_that_was_not_read_yet_is_waited_for(catalog: Catalog) -> None:
    records, release = Publisher().records(rules={"hot": RULE % 30})
    version = f"demo@{release.version}"
    with pytest.raises(Unavailable, match=version):
        catalog.rules(version)
    catalog.take(*records[-1])
    with pytest.raises(Unavailable, match="hot@"):
        catalog.profile_of("d1", version)
    catalog.take(*records[0])
    assert [rule.name for rule in catalog.rules(version)] == ["hot"]


def test_a_release_that_cannot_be_read_leaves_what_runs(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher()
    good = publisher.publish(catalog, rules={"hot": RULE % 30})
    publisher.publish(catalog, rules={"hot": RULE % 30 + "smell: foul\n"})
    assert catalog.release_version == good
    assert "what runs stays" in caplog.text
    assert "rules/hot:5: field smell" in caplog.text


def test_an_application_that_is_taken_away_is_no_longer_in_force(catalog: Catalog) -> None:
    version = Publisher().publish(catalog, profiles={"a": profile("a", "a*")})
    catalog.take(topics.config_releases.name, "demo", None)
    assert catalog.settle()
    assert catalog.release_version == ""
    assert catalog.profile_of("a1").name == "default"
    assert catalog.profile_of("a1", version).name == "a"


def test_a_registration_names_its_profile_and_is_live_at_once(catalog: Catalog) -> None:
    Publisher().publish(catalog, profiles={"a": profile("a", "a*"), "b": profile("b", "b*")})
    assert catalog.profile_of("a1").name == "a"
    assert register(catalog, "a1", "b")
    assert catalog.known("a1")
    assert catalog.profile_of("a1").name == "b"
    assert not register(catalog, "a1", "b")
    register(catalog, "a1", "gone")
    assert catalog.profile_of("a1").name == "a"
    assert [d.device for d in catalog.devices()] == ["a1"]
    assert catalog.take(topics.config_devices.name, "a1", None)
    assert catalog.device("a1") is None


def test_memory_of_devices_and_of_old_releases_is_bounded(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "CACHED_DEVICES", 3)
    publisher = Publisher()
    versions = [publisher.publish(catalog, rules={"hot": RULE % n}) for n in range(30, 30 + 2 * KEPT_VIEWS)]
    for number in range(10):
        catalog.profile_of(f"d{number}")
    assert len(catalog._views[versions[-1]].remembered) == 3
    for n, version in enumerate(versions):
        assert catalog.rules(version)[0].raise_when.above == 30 + n
    assert len(catalog._views) <= KEPT_VIEWS


def test_a_half_read_log_switches_nothing_and_a_torn_record_stops_nothing(
    catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    catalog.on_change.append(lambda: calls.append(catalog.release_version))
    publisher = Publisher()
    old, _ = publisher.records(rules={"hot": RULE % 30})
    new, release = publisher.records(rules={"hot": RULE % 40})

    def record(topic: str, key: str, value: bytes | None) -> SimpleNamespace:
        return SimpleNamespace(topic=topic, key=key.encode(), value=value, offset=7)

    torn = record(topics.config_rules.name, "x@1", b"{")
    catalog.take_records([torn, *(record(*one) for one in old)], complete=False)
    assert catalog.release is None
    catalog.take_records([record(*one) for one in new], complete=True)
    assert catalog.release == release
    assert calls[-1] == f"demo@{release.version}"
    assert "tp.config.rules.v1 offset 7 is passed over" in caplog.text
    calls.clear()
    catalog.take_records([record(*one) for one in new], complete=True)
    assert catalog.release == release
    assert not calls, "what was read again changes nothing"
    with pytest.raises(TpstreamError):
        catalog.take(topics.config_rules.name, "x@1", b"{")
