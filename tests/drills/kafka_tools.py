"""Kafka's own command line, which a local Kafka does not need: fetched by Maven when a drill asks for it."""

import asyncio
import subprocess
from pathlib import Path

from worker.tools.local_kafka import JARS, LocalKafkaError

_FOLDER = Path(__file__).parents[2] / ".cartsync" / "kafka-tools"
_PARENT = Path(__file__).parents[2] / "worker" / "tools" / "kafka-pom.xml"
_WITHIN_S = 300.0


def _fetch() -> None:
    """The jars of the version that `make kafka` runs, and of its command line."""
    if _FOLDER.exists():
        return
    pom = _PARENT.read_text(encoding="utf-8").replace("<artifactId>kafka_2.13<", "<artifactId>kafka-tools<")
    _FOLDER.parent.mkdir(parents=True, exist_ok=True)
    file = _FOLDER.with_name("kafka-tools-pom.xml")
    file.write_text(pom)
    fresh = _FOLDER.with_name("kafka-tools-new")
    command = ["mvn", "--quiet", "--batch-mode", "--strict-checksums", f"--file={file}"]
    command += ["dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_WITHIN_S)
    if done.returncode != 0:
        raise LocalKafkaError(f"Maven could not fetch Kafka's command line:\n{done.stdout[-1000:]}")
    fresh.rename(_FOLDER)


async def transactions(bootstrap: str, *words: str) -> str:
    """What `kafka-transactions.sh WORDS` prints. Raises `AssertionError` when it fails."""
    await asyncio.to_thread(_fetch)
    command = ["java", "-cp", f"{_FOLDER}/*:{JARS.absolute()}/*", "org.apache.kafka.tools.TransactionsCommand"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--bootstrap-server", bootstrap, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, f"kafka-transactions.sh {' '.join(words)}: {done.stdout}{done.stderr}"
    return str(done.stdout)
