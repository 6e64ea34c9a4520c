"""Wires a worker together from its ports; `run` makes a process of it."""

from worker.app.clock import SystemClock
from worker.app.worker import Ports, Worker

__all__ = ["Ports", "SystemClock", "Worker"]
