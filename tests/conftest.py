"""For all tests: random examples have no time limit of their own, which a machine under load would not keep."""

from hypothesis import HealthCheck, settings

settings.register_profile("gpusched", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gpusched")
