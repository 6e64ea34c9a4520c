"""Implementations of the ports without the world, and a provider over real HTTP."""
