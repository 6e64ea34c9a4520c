"""Settings of the property tests: repeatable, and not a matter of how busy the machine is."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit",
    deadline=None,  # a loaded machine is no failure
    derandomize=True,  # the same examples in every run: a gate must not depend on luck
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")
