"""The platform of a campaign: Apache Kafka, store, bridge and workers as processes, with proxies between them.

Workers reach Kafka and the store through proxies, and so do bridge and publisher reach Kafka. What only looks on
(the sampler, the verification) goes directly.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil
from fault.campaign.worker import order
from parts.kafka import free_port
from parts.proxy import Proxy

from tpstream.embedded.ask import health_url
from tpstream.embedded.child import die_with_parent
from tpstream.settings import Settings

APPLICATION = Path(__file__).parent / "application"
TESTS = Path(__file__).resolve().parents[2]

PARTITIONS = 4
SESSION = 6.0
"""Session timeout of the workers, s."""

BRIDGE = "bridge"
"""Its name among the processes that are kept running."""


class NotThere(Exception):
    """Something that a campaign waited for did not come; says what."""


class Process:
    """One process that can be started, stopped, killed and paused, again and again; its output goes to a log."""

    def __init__(self, name: str, command: list[str], environ: dict[str, str], folder: Path) -> None:
        self.name, self._command, self._environ = name, command, environ
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TPSTREAM_")}
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                env=kept
                | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "PYTHONUNBUFFERED": "1"}
                | self._environ,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(os.getpid()),
            )

    @property
    def pid(self) -> int:
        """Of the one that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended; a stopped one (SIGSTOP) runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def paused(self) -> bool:
        """Whether SIGSTOP holds it."""
        return self.running and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait. Its children (scripts) promised to die with it."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self, patience: float = 40.0) -> int:
        """SIGTERM, and wait; the exit code. NotThere if it does not end."""
        self.send(signal.SIGTERM)
        assert self._process is not None
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NotThere(f"{self.name} did not stop within {patience:g} s of SIGTERM") from None


class Stage:
    """All of it: processes, of which `workers` has bridge and workers by name; `to_kafka` and `to_store` are proxies.

    `publisher` and `devices` speak: one into the raw topic, the other to the bridge.
    """

    def __init__(self, folder: Path, *, settings: dict[str, Any] | None = None, broken: str = "") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.kafka_port, self._proxied, store_port = free_port(), free_port(), free_port()
        self.mqtt_port = free_port()
        self.to_kafka, self.to_store = Proxy(self._proxied), Proxy(store_port)
        self._overrides = settings or {}
        self._broken = broken
        advertised = self.to_kafka.port
        ports = [str(port) for port in (self.kafka_port, self._proxied, advertised)]
        broker = [sys.executable, "-m", "fault.campaign.broker", str(folder / "kafka"), *ports]
        self.kafka = Process("kafka", broker, {}, folder)
        self.store_settings = Settings(store_port=store_port, data_dir=folder / "store")
        store = [sys.executable, "-m", "tpstream.embedded.store"]
        self.store = Process("store", store, self.store_settings.environ(), folder)
        self.publisher: Process | None = None
        self.devices: Process | None = None
        self.workers: dict[str, Process] = {}
        self.restarted: list[str] = []
        """Workers that ended by themselves and were started again."""
        self._wanted: set[str] = set()
        """Those that are to run: whoever of them ends is started again, as any supervisor does."""
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._lock = threading.Lock()

    @property
    def direct(self) -> str:
        """Kafka without the proxy."""
        return f"127.0.0.1:{self.kafka_port}"

    def settings(self, name: str = "", **overrides: Any) -> Settings:
        """Settings of a worker or bridge of that name, with a data folder and ports of its own."""
        values: dict[str, Any] = {
            "kafka": f"127.0.0.1:{self.to_kafka.port}",
            "store_port": self.to_store.port,
            "data_dir": self.folder / "data" / name,
            "web_port": free_port(),
            "worker_web_port": free_port(),
            "bridge_web_host": "-",
            "bridge_web_port": free_port(),
            "mqtt_port": self.mqtt_port,
            "trusted_identity": "login,topic",
            "partitions": PARTITIONS,
            "register_on_first_sight": True,
            "session_timeout": SESSION,
            "app": str(APPLICATION),
        }
        return Settings(**values | self._overrides | overrides)

    # Begin and end

    def start(self, workers: int) -> None:
        """Start Kafka, store, bridge and so many workers of the role `process`, and one that stores."""
        self.to_kafka.__enter__()
        self.to_store.__enter__()
        self.kafka.start()
        self.store.start()
        self.wait(lambda: self.listens(self.kafka_port), "Kafka", 60)
        self.wait(self.store_answers, "the store", 60)
        for n in range(workers):
            self.add(f"process-{n}")
        self.add("store-0")
        self.add(BRIDGE)
        self._keeper.start()
        self.wait(self.ready, "workers and bridge", 90)
        self.wait(lambda: self.tpstream("apply", str(APPLICATION)), "the rules", 60)

    def end(self) -> None:
        """Kill everything, nothing is kept running."""
        self._ending.set()
        with self._lock:
            self._wanted.clear()
        for process in (self.publisher, self.devices, *self.workers.values(), self.store, self.kafka):
            if process is not None:
                process.kill()
        self.to_kafka.close()
        self.to_store.close()

    def tpstream(self, *arguments: str) -> bool:
        """Run a `tpstream` command against this platform; whether it succeeded."""
        environ = self.settings("cli", kafka=self.direct).environ()
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TPSTREAM_")}
        done = subprocess.run(
            [sys.executable, "-m", "tpstream", *arguments],
            env=kept | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        with (self.folder / "cli.log").open("a") as log:
            log.write(f"{arguments}: {done.returncode} {done.stdout} {done.stderr}\n")
        return done.returncode == 0

    # Workers

    def add(self, name: str) -> Process:
        """Start a worker `ROLE-N`, or the bridge, known by its name from now on."""
        worker = self.workers.get(name)
        if worker is None:
            role = name.partition("-")[0]
            settings = self.settings(name)
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            environ = settings.environ() | ({"FAULT_BREAK": self._broken} if self._broken else {})
            command = [sys.executable, "-m", "fault.campaign.worker", "--roles", role]
            if name == BRIDGE:
                command = [sys.executable, "-m", "tpstream", "bridge"]
            worker = self.workers[name] = Process(name, command, environ, self.folder)
        worker.start()
        with self._lock:
            self._wanted.add(name)
        return worker

    def release(self, name: str) -> Process:
        """Have nobody start this worker again when it ends."""
        with self._lock:
            self._wanted.discard(name)
        return self.workers[name]

    def keep(self, name: str) -> None:
        """Have a worker that runs be started again when it ends, after `release`."""
        with self._lock:
            self._wanted.add(name)

    def data_dir(self, name: str) -> Path:
        """A worker's data folder."""
        return self.folder / "data" / name

    def lose_state(self, name: str) -> None:
        """The disk under a worker's state is lost."""
        shutil.rmtree(self.data_dir(name) / "state", ignore_errors=True)

    def order(self, name: str, what: str, step: str) -> Path:
        """Order a worker to `kill` or `stop` itself after a step of its next checkpoint; the file that says so."""
        path = order(self.data_dir(name), what, step)
        path.touch()
        return path

    def names(self, role: str) -> list[str]:
        """The workers of a role that are to run."""
        with self._lock:
            return sorted(name for name in self._wanted if name.startswith(role))

    def busy(self, name: str) -> bool:
        """Whether a worker says that it has partitions to work on: the group may have left it without."""
        worker = self.workers[name]
        url = health_url(self.data_dir(name), "127.0.0.1", worker.pid) if worker.running else None
        if url is None:
            return False
        try:
            with urllib.request.urlopen(url, timeout=3) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:  # red, which says nothing of partitions
            said = error.read()
        except OSError:
            return False
        part = json.loads(said).get(name.partition("-")[0], {})
        return bool(part.get("partitions", 0))

    def _keep(self) -> None:
        # Processes must be started by the main thread (their death signal follows the thread), so this one only
        # lives as long as the main thread does.
        while not self._ending.wait(0.5):
            with self._lock:
                ended = [name for name in self._wanted if not self.workers[name].running]
                for name in ended:
                    self.workers[name].start()
                    self.restarted.append(name)

    # Conditions

    def listens(self, port: int) -> bool:
        """Whether something takes connections there."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def store_answers(self) -> bool:
        """Whether the store is there."""
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.store_settings.store_port}/ping", timeout=2).read()
            return True
        return False

    def ready(self) -> bool:
        """Whether devices can connect, and every worker that is to run has announced that it is there."""
        workers = [self.workers[name] for name in self._wanted if name != BRIDGE]
        announced = all("partitions of" in worker.log.read_text(errors="replace") for worker in workers)
        return announced and self.listens(self.mqtt_port)

    def wait(self, condition: Callable[[], Any], what: str, patience: float) -> None:
        """Until the condition holds. NotThere if it does not."""
        end = time.monotonic() + patience
        while not condition():
            if time.monotonic() > end:
                raise NotThere(f"{what}: not there after {patience:g} s")
            time.sleep(0.1)

    def rows(self, query: str, timeout: float = 120.0) -> list[tuple[Any, ...]]:
        """What the store returns, asked directly. Raises where it is away."""
        client = clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.store_settings.store_port,
            autogenerate_session_id=False,
            send_receive_timeout=timeout,
        )
        try:
            return list(client.query(query).result_rows)
        finally:
            client.close()
