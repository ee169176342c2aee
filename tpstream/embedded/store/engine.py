"""chdb as a service: one engine, a session per query, threads that are bounded.

A session of chdb is cheap (0.1 ms) and has settings and a current database of its own, so
each query gets a fresh one and no client can leave anything behind for the next. chdb lets
go of the GIL while it works, and sessions run side by side (measured), so a long SELECT
holds neither the event loop nor an insert.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tpstream.embedded.store.faults import TOO_MANY_QUERIES, Fault, fault, from_engine

MARK = "log_comment"
"""The setting that carries our number of a query, by which it can be found and killed."""


class Answer(NamedTuple):
    """What a query brought."""

    body: bytes
    rows_read: int
    bytes_read: int
    rows_written: int
    bytes_written: int
    elapsed: float
    """Seconds."""


class Lane:
    """A bounded queue in front of a few threads: reads, writes and checks each have their own."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.bound = threads + waiting
        self.taken = 0

    async def run(self, work: Any, *args: Any) -> Any:
        """Run `work` in a thread. Raises Fault 202 where too many are waiting already."""
        if self.taken >= self.bound:
            raise fault(TOO_MANY_QUERIES, f"Too many simultaneous queries. Maximum: {self.bound}")
        self.taken += 1
        future = asyncio.get_running_loop().run_in_executor(self.pool, work, *args)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, _: object) -> None:
        self.taken -= 1


class Engine:
    """The engine over one folder. Open it once per process: chdb knows only one path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads = Lane("read", 4, 60)
        self.bi_reads = Lane("bi", 2, 30)
        self.writes = Lane("write", 4, 60)
        self.quick = Lane("quick", 1, 120)
        self._numbers = itertools.count(1)
        self._running: set[str] = set()
        self._root: Any = None

    def open(self) -> None:
        """Start the engine. Raises Fault where the folder cannot be used."""
        # Times without a zone are UTC for everybody, wherever this machine stands.
        os.environ["TZ"] = "UTC"
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._root = self._session()
            self._root.query("SELECT 1")
        except Exception as error:
            raise from_engine(error) from None

    def _session(self) -> Any:
        from chdb.session import Session

        return Session(str(self.path))

    async def query(
        self,
        lane: Lane,
        sql: str,
        form: str = "TabSeparated",
        *,
        database: str = "",
        settings: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        readonly: int = 0,
        data: int | None = None,
    ) -> Answer:
        """Run one query; `data` is the descriptor of an insert's rows, else None.

        When the caller is cancelled (its client went away) a read is killed; a write ends
        by itself, so that nothing is left half done. Raises Fault.
        """
        mark = f"tpstream-{os.getpid()}-{next(self._numbers)}"
        setup = {**(settings or {}), MARK: mark}
        self._running.add(mark)
        try:
            answer: Answer = await lane.run(self._run, mark, sql, form, database, setup, dict(params or {}), readonly)
            return answer
        except asyncio.CancelledError:
            if data is None:
                self.kill(mark)
            raise

    def _run(
        self,
        mark: str,
        sql: str,
        form: str,
        database: str,
        settings: Mapping[str, str],
        params: dict[str, str],
        readonly: int,
    ) -> Answer:
        session = None
        try:
            if mark not in self._running:
                raise Fault(394, "Code: 394. DB::Exception: Query was cancelled. (QUERY_WAS_CANCELLED)")
            session = self._session()
            if database:
                session.query(f"USE {quoted(database)}")
            if settings:
                session.query("SET " + ", ".join(f"{quoted(k)} = {literal(v)}" for k, v in settings.items()))
            if readonly:
                session.query(f"SET readonly = {readonly}")
            result = session.query(sql, form, params=params or None)
            return Answer(
                result.bytes(),
                result.storage_rows_read(),
                result.storage_bytes_read(),
                result.rows_written(),
                result.bytes_written(),
                result.elapsed(),
            )
        except Fault:
            raise
        except Exception as error:
            raise from_engine(error) from None
        finally:
            self._running.discard(mark)
            if session is not None:
                session.close()

    def kill(self, mark: str) -> None:
        """Stop a query that nobody waits for any more; returns at once."""
        self._running.discard(mark)
        self.quick.pool.submit(self._kill, f"Settings['{MARK}'] = {literal(mark)}")

    def _kill(self, where: str) -> None:
        session = self._session()
        try:
            session.query(f"KILL QUERY WHERE {where} ASYNC")
        finally:
            session.close()

    async def close(self, grace: float) -> None:
        """Let what runs finish for `grace` seconds, kill the rest, and put the engine away."""
        waited = 0.0
        while self._running and waited < grace:
            await asyncio.sleep(0.05)
            waited += 0.05
        if self._running:
            await asyncio.to_thread(self._kill, f"startsWith(Settings['{MARK}'], 'tpstream-{os.getpid()}-')")
            while self._running and waited < grace + 2:
                await asyncio.sleep(0.05)
                waited += 0.05
        for lane in (self.reads, self.bi_reads, self.writes, self.quick):
            lane.pool.shutdown(wait=False, cancel_futures=True)
        if self._root is not None and not self._running:
            await asyncio.to_thread(self._root.close)


def literal(text: str) -> str:
    """A string literal of ClickHouse's SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted(name: str) -> str:
    """A quoted identifier of ClickHouse's SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def escaped(text: str) -> str:
    """A value as query parameters are written: ClickHouse's tab-separated escaping."""
    return (
        text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\0", "\\0").replace("\r", "\\r")
    )
