"""The real parts that tests run on; each file in `parts/` brings one as a fixture."""

import sys
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says how busy the machine is, nothing about the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

sys.path.insert(0, str(Path(__file__).parent))

pytest.register_assert_rewrite("parts.fleet", "parts.whole", "parts.device", "parts.bridge")

pytest_plugins = (
    "parts.kafka",
    "parts.store",
    "parts.mosquitto",
    "parts.chromium",
    "parts.whole",
    "parts.supervised",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kafka",
        choices=("embedded", "apache"),
        default="embedded",
        help="the broker of the fixtures kafka and fresh_kafka; apache needs `make kafka`",
    )
