"""Ports of this machine: free ones, and the Kafka node behind a port."""

import random
import socket
import struct

HOST = "127.0.0.1"

# Below Linux's ephemeral ports (32768 and up): a client that keeps connecting to a stopped node could otherwise
# get the node's own port, connect to itself, and keep the node from restarting.
_RANGE = range(20_000, 32_768)


def is_free(port: int) -> bool:
    """Whether a node can listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # like Kafka, which ignores TIME_WAIT
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """At most `count` different free ports; they are not reserved."""
    free: list[int] = []
    for port in random.SystemRandom().sample(_RANGE, len(_RANGE)):
        if len(free) == count:
            break
        if is_free(port):
            free.append(port)
    return free


def known_brokers(port: int) -> set[int]:
    """Ids of the brokers that the node at `port` says are in service; empty while it does not answer.

    A port accepts connections before its node serves, and that may be before it is registered and unfenced;
    so this asks. Metadata version 1 (https://kafka.apache.org/protocol), seen with Kafka 4.3.1 on 2026-11-21.
    """
    request = struct.pack(">hhihi", 3, 1, 0, -1, 0)  # Metadata, version, correlation id, no client id, no topics
    try:
        with (
            socket.create_connection((HOST, port), timeout=1) as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", answer.read(4))
            body = answer.read(size)
        _correlation, count = struct.unpack_from(">ii", body)
        brokers, at = set(), 8
        for _ in range(count):
            node, host_size = struct.unpack_from(">ih", body, at)
            at += 6 + host_size
            _port, rack_size = struct.unpack_from(">ih", body, at)
            at += 6 + max(rack_size, 0)
            brokers.add(node)
    except (OSError, struct.error):
        return set()
    return brokers
