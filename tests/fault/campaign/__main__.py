"""`python -m fault.campaign`: cause faults, compare, print the table; exit code 1 if anything at all was wrong."""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from fault.campaign.campaign import Campaign, order
from fault.campaign.faults import FAULTS
from fault.campaign.report import laid_at, summary, table, write
from fault.campaign.stage import NotThere, Stage

from tpstream.embedded.apache import Apache
from tpstream.errors import ConfigurationError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guarantees.md"
SHOWN = 40


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(prog="python -m fault.campaign", description=__doc__)
    options.add_argument("--full", action="store_true", help="every fault five times, for as long as they are meant")
    options.add_argument("--seed", type=int, default=os.environ.get("FAULT_SEED") or None)
    options.add_argument("--times", type=int, help="how often each fault is caused  [1; --full: 5]")
    options.add_argument("--seconds", type=float, help="begin no fault after so long  [120; --full: no limit]")
    options.add_argument("--only", action="append", metavar="TEXT", help="only faults with this in their name")
    options.add_argument("--rate", type=int, default=2_000, help="messages a second  [2000]")
    options.add_argument("--workers", type=int, default=2, help="workers of the role process  [2]")
    options.add_argument("--keep", action="store_true", help="keep logs and data also where all is well")
    options.add_argument("--write", action="store_true", help=f"write the table to {PAGE.name}")
    options.add_argument("--if-possible", action="store_true", help="succeed where Apache Kafka cannot run here")
    given = options.parse_args()
    try:
        Apache(Path(), "127.0.0.1", 0).check()
    except ConfigurationError as error:
        print(f"fault campaign: left out: {error}")
        return 0 if given.if_possible else 2
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    times = given.times or (5 if given.full else 1)
    seconds = given.seconds or (None if given.full or given.only or given.times else 120.0)
    names = [name for name in FAULTS if not given.only or any(text in name for text in given.only)]
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # the store is away on purpose
    folder = Path(tempfile.mkdtemp(prefix="tpstream-fault-"))
    print(f"fault campaign, seed {seed} (FAULT_SEED={seed} repeats its order); logs in {folder}", flush=True)
    stage = Stage(folder)
    campaign = Campaign(
        stage,
        seed=seed,
        rate=given.rate,
        workers=given.workers,
        short=not given.full,
        say=lambda s: print(s, flush=True),
    )
    try:
        result = campaign.run(order(seed, names, times), seconds)
    except NotThere as error:
        print(f"FAILED: {error}")
        return 1
    finally:
        stage.end()
    shown = table(result, list(FAULTS))
    print(f"\n{shown}\n\n{summary(result)}")
    for fault, finding in laid_at(result.findings, result.spans)[:SHOWN]:
        print(f"{finding.what.upper()} ({fault}): {finding.text}")
    if given.write:
        words = [word for word in sys.argv[1:] if word != "--write"]
        command = "make fault FULL=1" if words == ["--full"] else " ".join(["python -m fault.campaign", *words])
        day = time.strftime("%Y-%m-%d", time.gmtime(result.began))
        write(PAGE, f"{day}, `{command}` (FAULT_SEED={seed}): {summary(result)}\n\n{shown}")
    if result.passed and not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"logs are kept in {folder}")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
