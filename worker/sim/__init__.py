"""Fakes: in-memory implementations of the ports, and a scripted provider."""
