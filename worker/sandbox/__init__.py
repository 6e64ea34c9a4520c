"""Providers on this machine, each as it documents itself: over real HTTP, with faults, pushes and a page.

A folder each, in which the provider's side is pure: requests in, answers out. `server` has the port, the log and the
page of all of them, `faults` what goes wrong on the way, `pushes` what they call back with.
"""
