"""Wires a worker together from its ports; `run` does so for a process of its own."""

from worker.app.clock import SystemClock
from worker.app.worker import Ports, Worker

__all__ = ["Ports", "SystemClock", "Worker"]
