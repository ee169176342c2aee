"""The real parts that tests run on; each file in `parts/` brings one as a fixture."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = (
    "parts.kafka",
    "parts.store",
    "parts.mosquitto",
    "parts.chromium",
    "parts.whole",
    "parts.supervised",
)
