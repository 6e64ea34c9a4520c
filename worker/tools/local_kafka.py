"""A real Apache Kafka on this machine, as child processes: for integration tests, `make kafka` and the demo.

    python -m worker.tools.local_kafka --nodes 3

KRaft, each node broker and controller in one; everything below one temporary folder, nothing listens beyond
127.0.0.1. The nodes end with the program that started them, also when that is killed (`reaper.py`).
"""

import argparse
import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from worker.tools.kafka_jars import JARS, LocalKafkaError, install, missing_requirements
from worker.tools.kafka_ports import HOST, free_ports, is_free, known_brokers
from worker.tools.reaper import Reaper

__all__ = ["JARS", "LocalKafka", "LocalKafkaError", "missing_requirements"]

_READY_WITHIN_S = 60.0
_POLL_S = 0.05

_JVM = (
    # A start in two seconds on two cores is worth more here than throughput later.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    # With the class archive, if there is one. An archive of a different Java is silently ignored.
    "-Xshare:auto",
    "-Xlog:disable",
    "-XX:-UsePerfData",  # a file in /tmp that would outlive SIGKILL
    "-XX:+ExitOnOutOfMemoryError",  # rather than half a node
)

_LOG4J = """\
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c - %m%n
"""


class LocalKafka:
    """Kafka nodes 1 to `nodes`, from `start()` to `stop()`; a context manager.

    `jars` is the folder of Kafka's jars, filled at the first start; `heap` the bound of each node's, in
    Java's notation; `settings` are broker properties that come over ours; `port` is that of node 1, instead
    of a free one.

    Every method blocks; from asyncio call it through `asyncio.to_thread`, one at a time. Every failure is a
    `LocalKafkaError`.
    """

    def __init__(
        self,
        nodes: int = 1,
        jars: Path = JARS,
        heap: str = "512m",
        settings: Mapping[str, str | int] | None = None,
        port: int | None = None,
    ) -> None:
        if nodes < 1:
            raise LocalKafkaError(f"{nodes} nodes: at least 1 is needed")
        self.nodes = tuple(range(1, nodes + 1))
        self._jars = jars.absolute()
        self._heap = heap
        self._settings = dict(settings or {})
        free = free_ports(2 * nodes)
        self._ports = dict(zip(self.nodes, free[:nodes], strict=True))
        self._controller_ports = dict(zip(self.nodes, free[nodes:], strict=True))
        if port is not None:
            self._ports[1] = port
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._folder: Path | None = None
        self._reaper: Reaper | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """`host:port` of each node, separated by commas; known before the start."""
        return ",".join(f"{HOST}:{port}" for port in self._ports.values())

    def start(self) -> None:
        """Returns once every node responds and knows all others. Leaves nothing behind if it fails."""
        if self._folder is not None:
            raise LocalKafkaError("this Kafka is already running")
        if missing := missing_requirements(self._jars):
            raise LocalKafkaError("; ".join(missing))
        install(self._jars)
        if not is_free(self._ports[1]):
            raise LocalKafkaError(f"port {self._ports[1]} is in use: choose another one, or stop what listens there")
        atexit.register(self.stop)
        self._folder = Path(tempfile.mkdtemp(prefix="cartsync-kafka-"))
        try:
            self._reaper = Reaper(self._folder)
            self._format()
            for node in self.nodes:
                self._launch(node)
            for node in self.nodes:
                self._await(node, set(self.nodes))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills every node and removes its data. May be repeated."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._reaper is not None:
            self._watch()
            self._reaper.close()
            self._reaper = None
        atexit.unregister(self.stop)

    def kill(self, node: int) -> None:
        """SIGKILL. Data that the node has passed to the operating system survives until `restart`."""
        process = self._running(node)
        process.kill()
        process.wait()
        self._watch()

    def freeze(self, node: int) -> None:
        """SIGSTOP: the node stops, with open connections, until `thaw`."""
        self._running(node).send_signal(signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        """SIGCONT: a frozen node continues."""
        self._running(node).send_signal(signal.SIGCONT)

    def restart(self, node: int) -> None:
        """Starts the node with the data it had, killing it first if it runs; returns once it responds.

        Needs a majority of the nodes, this one included, for there must be a controller. That refuses a node
        until the session before the kill has run out: `broker.session.timeout.ms`, 9 s by default.
        """
        if self.is_running(node):
            self.kill(node)
        self._launch(node)
        self._await(node, {node})

    def pid(self, node: int) -> int:
        """The process id of a running node."""
        return self._running(node).pid

    def is_running(self, node: int) -> bool:
        """Whether there is a process of this node, even a frozen one."""
        process = self._processes.get(node)
        return process is not None and process.poll() is None

    def log_tail(self, node: int, lines: int = 20) -> str:
        """The last lines of the node's log (warnings and worse), over all its starts."""
        text = self._file(f"{node}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _file(self, name: str) -> Path:
        if self._folder is None:
            raise LocalKafkaError("this Kafka is not started")
        return self._folder / name

    def _running(self, node: int) -> subprocess.Popen[bytes]:
        if not self.is_running(node):
            raise LocalKafkaError(f"node {node} is not running")
        return self._processes[node]

    def _format(self) -> None:
        """Prepares the storage of all nodes at once, with Kafka's own tool."""
        self._file("log4j2.properties").write_text(_LOG4J)
        # `=` because the id may begin with a dash
        cluster = "--cluster-id=" + urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        for node in self.nodes:
            properties = self._node_properties(node) | _cluster_properties(len(self.nodes)) | self._settings
            file = self._file(f"{node}.properties")
            file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
            tool = ("kafka.tools.StorageTool", "format", cluster, f"--config={file}")
            self._spawn(node, *tool, archiving=node == 1)
        for node, process in self._processes.items():
            if process.wait() != 0:
                raise LocalKafkaError(f"node {node} cannot format its storage:\n{self.log_tail(node)}")
        with contextlib.suppress(FileNotFoundError):
            self._new_archive.rename(self._archive)

    def _node_properties(self, node: int) -> dict[str, str | int]:
        voters = ",".join(f"{voter}@{HOST}:{port}" for voter, port in self._controller_ports.items())
        return {
            "node.id": node,
            "controller.quorum.voters": voters,
            "listeners": f"CLIENTS://{HOST}:{self._ports[node]},CONTROLLER://{HOST}:{self._controller_ports[node]}",
            "log.dirs": str(self._file(f"data{node}")),
        }

    @property
    def _archive(self) -> Path:
        """A class archive, which saves a third of a JVM's startup. The first format creates it."""
        return self._jars / "classes.jsa"

    @property
    def _new_archive(self) -> Path:
        """Under a name of our own until it is complete, because others may be starting."""
        return self._jars / f"classes.jsa.{os.getpid()}"

    def _launch(self, node: int) -> None:
        self._spawn(node, "kafka.Kafka", str(self._file(f"{node}.properties")))

    def _spawn(self, node: int, *words: str, archiving: bool = False) -> None:
        command = ["java", f"-Xmx{self._heap}", *_JVM, "-cp", f"{self._jars}/*"]
        if self._archive.exists():
            command.append(f"-XX:SharedArchiveFile={self._archive}")
        elif archiving:
            command.append(f"-XX:ArchiveClassesAtExit={self._new_archive}")
        command += [f"-Dlog4j2.configurationFile={self._file('log4j2.properties')}", *words]
        with self._file(f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder
            )
        self._watch()

    def _watch(self) -> None:
        if self._reaper is not None:
            self._reaper.watch(process.pid for process in self._processes.values() if process.poll() is None)

    def _await(self, node: int, brokers: set[int]) -> None:
        give_up_at = time.monotonic() + _READY_WITHIN_S
        while not brokers <= known_brokers(self._ports[node]):
            if not self.is_running(node):
                raise LocalKafkaError(f"node {node} has exited:\n{self.log_tail(node)}")
            if time.monotonic() > give_up_at:
                late = f"node {node} is not ready after {_READY_WITHIN_S:.0f} s"
                raise LocalKafkaError(f"{late}:\n{self.log_tail(node)}")
            time.sleep(_POLL_S)


def _cluster_properties(nodes: int) -> dict[str, str | int]:
    replicas, in_sync_min = min(nodes, 3), 2 if nodes >= 3 else 1
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENTS",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,CLIENTS:PLAINTEXT",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync_min,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 5,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync_min,
        "transaction.state.log.num.partitions": 5,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync_min,
        "auto.create.topics.enable": "false",  # a misspelled topic is an error, not a topic
        "group.initial.rebalance.delay.ms": 0,  # otherwise a lone consumer waits 3 s for others
        "log.cleaner.backoff.ms": 1_000,  # of 15 s: tests of compaction wait for the cleaner
        "log.cleaner.dedupe.buffer.size": 16 * 2**20,  # of 128 MiB; still 600 thousand keys in one pass
    }


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Runs a Kafka until Ctrl-C or SIGTERM, or until no node is left; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker.tools.local_kafka", description="Kafka on this machine")
    parser.add_argument("--nodes", type=int, default=1, help="brokers, each a controller too (default: 1)")
    parser.add_argument("--port", type=int, help="of the first node (default: a free one)")
    parser.add_argument("--jars", type=Path, default=JARS, help=f"folder of Kafka's jars (default: {JARS})")
    arguments = parser.parse_args()
    # SIGINT, too: it is ignored if a shell started us with &.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)
    try:
        with LocalKafka(arguments.nodes, arguments.jars, port=arguments.port) as kafka:
            print(f"Kafka is ready. Bootstrap servers: {kafka.bootstrap}")
            print("Ctrl-C (or SIGTERM) stops it and removes its data.", flush=True)
            running = set(kafka.nodes)
            while running:  # a cluster continues without a node that somebody killed on purpose
                time.sleep(1)
                for node in [node for node in running if not kafka.is_running(node)]:
                    running.remove(node)
                    print(f"Node {node} has exited:\n{kafka.log_tail(node)}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        print("Kafka has stopped.", file=sys.stderr)
        return 0
    except LocalKafkaError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
