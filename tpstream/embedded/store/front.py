"""The HTTP interface: aiohttp in front of the engine, as ClickHouse's own port 8123 behaves."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping

from aiohttp import web

from tpstream.embedded.store.access import Policy
from tpstream.embedded.store.body import MAX_HEAD, Body, is_insert, split_insert
from tpstream.embedded.store.engine import Answer, Engine, Lane, escaped, literal
from tpstream.embedded.store.faults import ACCESS_DENIED, BAD_REQUEST, NOT_IMPLEMENTED, TOO_LARGE, Fault, fault
from tpstream.embedded.store.request import CONTENT_TYPES, Context, context, format_of
from tpstream.embedded.store.users import authenticate
from tpstream.settings import Settings

BODIES = 8
"""Large bodies in hand at once: with body.MAX_BODY the bound of what inserts can take of memory."""
SMALL = 262_144
"""Bytes of a body that needs no place among them; the lanes bound how many of these there are."""
_READS = (b"SELECT", b"WITH", b"SHOW", b"DESC", b"EXPLAIN", b"EXISTS", b"FROM", b"(")


class Front:
    """Requests in, ClickHouse's answers out."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.version = ""
        self._functions: dict[str, str] = {}
        self._combinators: tuple[str, ...] = ()
        self._bodies = asyncio.Semaphore(BODIES)

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application()
        app.router.add_get("/ping", self.ping)
        app.router.add_route("*", "/", self.handle)
        return app

    async def prepare(self) -> None:
        """Learn from the engine what functions there are; once, before the port is opened."""
        self.version = (await self._ask("SELECT version()"))[0][0]
        rows = await self._ask(
            "SELECT lower(f.name), if(f.alias_to = '', f.categories, c.categories) FROM system.functions AS f"
            " LEFT JOIN (SELECT name, any(categories) AS categories FROM system.functions GROUP BY name) AS c"
            " ON f.alias_to = c.name"
        )
        self._functions = {row[0]: row[1] for row in rows}
        combinators = await self._ask("SELECT lower(name) FROM system.aggregate_function_combinators")
        self._combinators = tuple(row[0] for row in combinators)

    async def ping(self, _: web.Request) -> web.Response:
        """Answered by the event loop alone, whatever the engine does."""
        return web.Response(text="Ok.\n")

    async def handle(self, request: web.Request) -> web.Response:
        """One query or insert."""
        query_id = request.query.get("query_id") or str(uuid.uuid4())
        try:
            self._from_here(request)
            if request.method == "GET" and not request.query.get("query"):
                return web.Response(text="Ok.\n")
            if request.method not in ("GET", "POST"):
                raise fault(NOT_IMPLEMENTED, f"Method {request.method} is not supported; use GET or POST")
            if (request.content_length or SMALL + 1) <= SMALL or request.method == "GET":
                return await self._answer(request, query_id)
            async with self._bodies:
                return await self._answer(request, query_id)
        except Fault as error:
            text = f"{error} (version {self.version} (tpstream))\n"
            headers = {"X-ClickHouse-Exception-Code": str(error.code), "X-ClickHouse-Query-Id": query_id}
            return web.Response(text=text, status=error.status, headers=headers)

    def _from_here(self, request: web.Request) -> None:
        """No foreign web page may use the store through somebody's browser (users here have no password)."""
        if not self.settings.host.startswith("127.") and self.settings.host not in ("localhost", "::1"):
            return
        origin = request.headers.get("Origin", "")
        for name in (request.host, origin.partition("://")[2]):
            bare = name.rsplit(":", 1)[0].strip("[]")
            if bare and bare not in ("localhost", "::1") and not bare.startswith("127."):
                raise fault(
                    ACCESS_DENIED, f"Requests for or from {bare} are not answered here, only those of this machine"
                )

    async def _answer(self, request: web.Request, query_id: str) -> web.Response:
        given = dict(request.query)
        multipart = request.content_type == "multipart/form-data"
        with Body("" if multipart else request.headers.get("Content-Encoding", "").lower()) as body:
            if multipart:
                given.update(await self._form(request))
            elif request.method == "POST":
                async for piece in request.content.iter_chunked(SMALL):
                    body.feed(piece)
                body.end()
            statement = given.get("query", "")
            user = authenticate(request.headers, given, request.remote or "", self.settings)
            what = context(user, given, request.headers, self.settings.database, request.method == "GET")
            if user.reads_only:
                if body.size > MAX_HEAD:
                    raise fault(TOO_LARGE, f"A query has at most {MAX_HEAD} bytes")
                text = "\n".join(part for part in (statement, body.all().decode(errors="replace")) if part)
                return await self._read_only(what, text, query_id)
            return await self._anything(what, statement, body, query_id)

    async def _form(self, request: web.Request) -> Mapping[str, str]:
        fields: dict[str, str] = {}
        for name, value in (await request.post()).items():
            if not isinstance(value, str):
                raise fault(NOT_IMPLEMENTED, "External data is not supported by the embedded store")
            fields[name] = value
        return fields

    async def _anything(self, what: Context, statement: str, body: Body, query_id: str) -> web.Response:
        head = statement.encode() if statement else body.head()
        lane = self.engine.reads
        if is_insert(head) or not head.lstrip()[:6].upper().startswith(
            (b"SELECT", b"WITH", b"SHOW", b"DESC", b"EXPL", b"EXISTS")
        ):
            lane = self.engine.writes
        insert = split_insert(head) if is_insert(head) else None
        if insert is not None and body.size > 0:
            before, form, rows = insert
            body.cut(0 if statement else rows)
            target, _, rest = before.decode().partition(" SETTINGS ")
            sql = f"{target} FROM INFILE {literal(body.path)} COMPRESSION 'none' "
            sql += f"{'SETTINGS ' + rest if rest else ''} FORMAT {form}"
            if body.size == 0:
                return self._response(what, Answer(b"", 0, 0, 0, 0, 0.0), form, query_id)
            return await self._run(lane, what, sql, query_id, data=body.descriptor)
        sql = "\n".join(part for part in (statement, body.all().decode(errors="surrogateescape")) if part)
        if not sql.strip():
            raise fault(BAD_REQUEST, "Empty query")
        return await self._run(lane, what, sql, query_id)

    async def _read_only(self, what: Context, text: str, query_id: str) -> web.Response:
        """Have ClickHouse parse the text, look at its tree, run what was looked at."""
        if what.database != self.settings.database:
            raise fault(
                ACCESS_DENIED, f"bi: Not enough privileges. Only the database {self.settings.database} may be read"
            )
        engine = self.engine
        formatted = await engine.query(
            engine.quick,
            "SELECT formatQuerySingleLine({q:String})",
            "TSVRaw",
            params={"q": escaped(text)},
            readonly=1,
        )
        sql = formatted.body.decode().removesuffix("\n")
        tree = await engine.query(engine.quick, f"EXPLAIN AST {sql}", "TSVRaw", params=what.params, readonly=1)
        policy = Policy(
            self.settings.database,
            frozenset(row[0] for row in await self._ask("SELECT name FROM system.databases")),
            frozenset(
                row[0]
                for row in await self._ask(
                    f"SELECT name FROM system.tables WHERE database = {literal(self.settings.database)}"
                )
            ),
            self._functions,
            self._combinators,
        )
        policy.check(tree.body.decode())
        return await self._run(engine.bi_reads, what, sql, query_id)

    async def _run(self, lane: Lane, what: Context, sql: str, query_id: str, data: int | None = None) -> web.Response:
        answer = await self.engine.query(
            lane,
            sql,
            what.form,
            database=what.database,
            settings=what.settings,
            params=what.params,
            readonly=what.readonly,
            data=data,
        )
        return self._response(what, answer, format_of(sql[-400:], what.form), query_id)

    def _response(self, what: Context, answer: Answer, form: str, query_id: str) -> web.Response:
        summary = {
            "read_rows": str(answer.rows_read),
            "read_bytes": str(answer.bytes_read),
            "written_rows": str(answer.rows_written),
            "written_bytes": str(answer.bytes_written),
            "result_bytes": str(len(answer.body)),
            "elapsed_ns": str(int(answer.elapsed * 1e9)),
        }
        headers = {
            "X-ClickHouse-Query-Id": what.query_id or query_id,
            "X-ClickHouse-Format": form,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Server-Display-Name": "tpstream",
            "X-ClickHouse-Summary": json.dumps(summary),
            "Content-Type": CONTENT_TYPES.get(form, "text/plain; charset=UTF-8"),
        }
        return web.Response(body=answer.body, headers=headers)

    async def _ask(self, sql: str) -> list[list[str]]:
        answer = await self.engine.query(self.engine.quick, sql, "TSVRaw")
        return [line.split("\t") for line in answer.body.decode().splitlines()]
