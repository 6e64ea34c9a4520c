"""The parts of a local Kafka: Java from the PATH, and jars that Maven fetches once."""

import fcntl
import functools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import CartsyncError

JARS = Path(".kafka/libs")  # below the current directory, which is that of the Makefile

_POM = Path(__file__).with_name("kafka-pom.xml")
_JAVA_MIN = 17  # brokers of Kafka 4: KIP-1013
_MAVEN_TIMEOUT_S = 600.0


class LocalKafkaError(CartsyncError):
    """A local Kafka cannot run. Says what is missing or wrong, and what to do."""


@functools.cache
def _java_version() -> int | None:
    """The major version of the `java` on the PATH; `None` without one. Costs the start of a JVM, once."""
    try:
        run = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    # `version "17.0.15"`, `version "25"`, and of old `version "1.8.0_442"`; on stderr
    found = re.search(r'version "(?:1\.)?(\d+)', run.stderr)
    return int(found[1]) if found else None


def is_complete(jars: Path) -> bool:
    """Whether the jars of our pom are present. The marker is a copy of the pom, which names the versions."""
    try:
        return (jars / _POM.name).read_bytes() == _POM.read_bytes()
    except OSError:
        return False


def missing_requirements(jars: Path = JARS) -> list[str]:
    """A sentence for each program that must be installed first; empty if Kafka can run."""
    missing = []
    version = _java_version()
    if version is None or version < _JAVA_MIN:
        found = "none was found" if version is None else f"the one found is {version}"
        missing.append(
            f"Kafka needs Java {_JAVA_MIN} or newer on the PATH, {found}: "
            "install a runtime (Debian: openjdk-17-jre-headless)"
        )
    if not is_complete(jars) and shutil.which("mvn") is None:
        missing.append("Kafka's jars are fetched by Maven and no `mvn` is on the PATH: install it (Debian: maven)")
    return missing


def install(jars: Path = JARS) -> None:
    """Makes `jars` complete; does nothing when it is. Safe in several processes at once: all but one wait.

    Raises `LocalKafkaError`.
    """
    if is_complete(jars):
        return
    if missing := missing_requirements(jars):
        raise LocalKafkaError("; ".join(missing))
    jars.parent.mkdir(parents=True, exist_ok=True)
    with _locked(jars.with_name(f"{jars.name}.lock")):
        if not is_complete(jars):
            _fetch(jars)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel releases it with the process, so that a killed one leaves no lock behind.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(jars: Path) -> None:
    if jars.exists() and any(jars.iterdir()) and not (jars / _POM.name).exists():
        raise LocalKafkaError(f"{jars} is not empty and was not made by cartsync: name another folder for Kafka's jars")
    print(f"Maven fetches Kafka's jars into {jars} (once, 44 MB)", file=sys.stderr, flush=True)
    # In the same parent folder, because a rename works only within one file system; all or nothing.
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=f"{jars.name}-") as folder:
        fresh = Path(folder).absolute() / jars.name
        _run_maven(fresh)
        shutil.copyfile(_POM, fresh / _POM.name)
        if jars.exists():
            shutil.rmtree(jars)
        fresh.rename(jars)


def _run_maven(target: Path) -> None:
    # `--strict-checksums`: a file damaged in transit is an error, not a warning
    command = ["mvn", "--quiet", "--batch-mode", "--strict-checksums", f"--file={_POM}"]
    command += ["dependency:copy-dependencies", f"-DoutputDirectory={target}"]
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_MAVEN_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise LocalKafkaError(
            f"Maven did not fetch Kafka's jars within {_MAVEN_TIMEOUT_S:.0f} s: is it online?"
        ) from None
    if run.returncode != 0:
        said = "\n".join(run.stdout.strip().splitlines()[:5])
        raise LocalKafkaError(f"Maven could not fetch Kafka's jars; it must be online, once. It said:\n{said}")
