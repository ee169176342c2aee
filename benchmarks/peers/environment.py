"""Environments of their own for the peers, made on demand in the ignored data folder: a venv, and jars."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "var" / "bench"
INSTALL_SECONDS = 600.0


class Missing(RuntimeError):
    """A peer cannot be had on this machine; the message says why."""


def python() -> str:
    """The interpreter of the venv with the pinned peers. Raises Missing."""
    venv = FOLDER / "venv"
    interpreter, stamp = venv / "bin" / "python", venv / "installed.txt"
    wanted = (HERE / "requirements.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        FOLDER.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(venv)])
        _run([str(interpreter), "-m", "pip", "install", "-q", "-r", str(HERE / "requirements.txt")])
        stamp.write_text(wanted)
    return str(interpreter)


def streams() -> list[str]:
    """The command that runs Kafka Streams' job, compiled. Raises Missing where Java or Maven are."""
    for program in ("java", "javac", "mvn"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not here; `make kafka` says how to get Java")
    source = HERE / "streams"
    libs, classes = FOLDER / "streams" / "libs", FOLDER / "streams" / "classes"
    stamp = FOLDER / "streams" / "installed.txt"
    wanted = (source / "pom.xml").read_text() + (source / "src/main/java/Tumbling.java").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(FOLDER / "streams", ignore_errors=True)
        classes.mkdir(parents=True)
        _run(["mvn", "-q", "-B", "-f", str(source / "pom.xml"), "dependency:copy-dependencies",
              "-DincludeScope=runtime", f"-DoutputDirectory={libs}"])  # fmt: skip
        _run(["javac", "-cp", f"{libs}/*", "-d", str(classes), str(source / "src/main/java/Tumbling.java")])
        stamp.write_text(wanted)
    return ["java", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{classes}:{libs}/*", "Tumbling"]


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "").strip().splitlines()[-1:]
        raise Missing(f"{Path(command[0]).name} failed: {' '.join(last)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{Path(command[0]).name}: {error}") from None
