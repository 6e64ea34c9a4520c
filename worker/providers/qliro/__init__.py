"""Qliro: the Admin API, commands whose results come later."""

from worker.providers.qliro.steps import Qliro

__all__ = ["Qliro"]
