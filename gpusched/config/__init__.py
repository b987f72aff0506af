"""The configuration: every setting, the origin of each value, and the errors about wrong values.

`schema` has the settings with their defaults and bounds, `sources` the places that a value may come from, `values` the
check of each, `wording` what a setting accepts in words, `workloads` the settings of each workload, and `batch` what a
batch takes from the settings. Nothing here opens what a setting names: those who use a path or a device find out
whether it exists. Start with `sources.load`.
"""

from gpusched.config.batch import DatesReversed, NoDates, batch_spec, run_state_dir, terms
from gpusched.config.schema import (
    BUILT_IN_WORKLOAD,
    SECTIONS,
    STATE_DIR,
    Cache,
    Config,
    Daemon,
    Devices,
    Engine,
    Hooks,
    Metrics,
    Run,
    Slots,
)
from gpusched.config.sources import BadToml, Loaded, NoConfigFile, UnknownKey, load, stray_variables
from gpusched.config.values import BadValue, path_problem
from gpusched.config.workloads import (
    NO_ORIGINS,
    canonical,
    given_settings,
    origins_of,
    refused,
    settings_at,
    with_parameters,
    workload_settings,
)

__all__ = [
    "BUILT_IN_WORKLOAD",
    "NO_ORIGINS",
    "SECTIONS",
    "STATE_DIR",
    "BadToml",
    "BadValue",
    "Cache",
    "Config",
    "Daemon",
    "DatesReversed",
    "Devices",
    "Engine",
    "Hooks",
    "Loaded",
    "Metrics",
    "NoConfigFile",
    "NoDates",
    "Run",
    "Slots",
    "UnknownKey",
    "batch_spec",
    "canonical",
    "given_settings",
    "load",
    "origins_of",
    "path_problem",
    "refused",
    "run_state_dir",
    "settings_at",
    "stray_variables",
    "terms",
    "with_parameters",
    "workload_settings",
]
