"""Every mutation, by name."""

from tests.simulation import broken_owning, broken_sending

MUTATIONS = broken_sending.breaks | broken_owning.breaks
