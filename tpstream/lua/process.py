"""The script process: `python -m tpstream.lua.process CPU_MS WALL_MS MEMORY RESULT`.

Reads requests from standard input and answers on standard output; ends when its input does.
A thread watches over the main one: Lua runs without Python's lock, so the thread gets to run
whatever the script does, and ends the process with what was done so far.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import OrderedDict

from tpstream.errors import ConfigurationError
from tpstream.lua.frames import LENGTH, Reply, Request, decode_request, frame
from tpstream.lua.sandbox import Budget, Sandbox, Status

MAX_SANDBOXES = 64
_POLL = 0.01
_FLUSH = 0.05
"""Seconds after which finished calls are answered though others wait."""
_STARVED = 10
"""Times the wall budget after which a call is stopped even if the machine gave it no CPU."""


class Process:
    """The sandboxes of this process, and the request in hand."""

    def __init__(self, budget: Budget, wall_ms: int, out: int) -> None:
        self.budget = budget
        self.wall = wall_ms / 1000
        self.cpu = budget.cpu_ms / 1000
        self.out = out
        self.sources: dict[str, str] = {}
        self.sandboxes: OrderedDict[str, Sandbox] = OrderedDict()
        self.done: Reply = []
        self.calls = 0
        """Calls begun."""
        self.running = False
        """Whether the last of them may still run."""
        self._writing = threading.Lock()

    def run(self, request: Request) -> None:
        """Answer a request, in one or more replies."""
        self.sources.update(request.sources)
        clock = time.monotonic
        flushed = clock()
        of, sandbox = "", None
        for script, entry, msg, topic in request.calls:
            if sandbox is None or script != of:
                of, sandbox = script, self._sandbox(script)
            self.calls += 1
            self.running = True
            answer = sandbox.call(entry, msg, topic)
            self.done.append(answer)
            if answer[0] >= Status.CPU:
                self.sandboxes.pop(script, None)
                break
            if request.one_by_one or clock() - flushed > _FLUSH:
                self.flush()
                flushed = clock()
        self.flush()

    def flush(self) -> None:
        """Answer what is done."""
        self.running = False
        with self._writing:
            done, self.done = self.done, []
            if done:
                _write(self.out, frame(done))

    def _sandbox(self, script: str) -> Sandbox | Broken:
        sandbox = self.sandboxes.get(script)
        if sandbox is None:
            try:
                sandbox = Sandbox(self.sources[script], self.budget)
            except ConfigurationError as error:
                return Broken(str(error))
            self.sandboxes[script] = sandbox
            if len(self.sandboxes) > MAX_SANDBOXES:
                self.sandboxes.popitem(last=False)
        return sandbox

    def watch(self) -> None:
        """End the process when one call takes too long; runs in a thread of its own."""
        seen, since, cpu = -1, 0.0, 0.0
        while True:
            time.sleep(_POLL)
            now = time.monotonic()
            if not self.running or self.calls != seen:
                seen, since, cpu = self.calls, now, time.process_time()
                continue
            if now - since < self.wall - 2 * _POLL:
                continue
            if time.process_time() - cpu > self.cpu or now - since > _STARVED * self.wall:
                with self._writing:  # what the main thread might still answer would be told twice
                    if self.running and self.calls == seen:
                        _write(self.out, frame([*self.done, (Status.STUCK, b"")]))
                        os._exit(3)


class Broken:
    """In the place of the sandbox of a script that does not compile."""

    def __init__(self, why: str) -> None:
        self.why = why.encode()

    def call(self, entry: bytes, msg: bytes, topic: bytes) -> tuple[int, bytes]:
        """Say why."""
        return Status.ERROR, self.why


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def main(arguments: list[str]) -> int:
    """Serve requests until standard input ends."""
    cpu_ms, wall_ms, memory, result = map(int, arguments)
    # The worker ends this process by closing the pipe, when it needs it no more.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    process = Process(Budget(cpu_ms, memory, result), wall_ms, os.dup(sys.stdout.fileno()))
    threading.Thread(target=process.watch, daemon=True).start()
    _write(process.out, frame([]))  # ready
    read = sys.stdin.buffer.read
    try:
        while head := read(LENGTH.size):
            process.run(decode_request(read(LENGTH.unpack(head)[0])))
    except (BrokenPipeError, EOFError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
