"""Tells providers: many orders at once, one attempt in flight per order. The only way out of the worker."""
