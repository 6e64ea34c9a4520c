"""The ports that the worker opens: the private one of operations."""
