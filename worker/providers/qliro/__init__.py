"""Qliro."""
