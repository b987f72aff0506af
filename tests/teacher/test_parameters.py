from __future__ import annotations

import lightgbm
import pytest
from lightgbm.basic import _ConfigAliases

from gpusched.teacher.parameters import ALIASES, CANONICAL, LIGHTGBM_VERSION
from gpusched.teacher.schema import LIGHTGBM_DEFAULTS, OWNED


def test_the_table_is_what_lightgbm_says_of_itself() -> None:
    if lightgbm.__version__ != LIGHTGBM_VERSION:
        pytest.skip(f"the table is of LightGBM {LIGHTGBM_VERSION}, installed is {lightgbm.__version__}")
    installed = _ConfigAliases._get_all_param_aliases()
    assert {name: {name, *aliases} for name, aliases in ALIASES.items()} == {
        name: {name, *aliases} for name, aliases in installed.items()
    }


def test_our_own_names_are_canonical() -> None:
    for name in (*LIGHTGBM_DEFAULTS, *OWNED):
        assert CANONICAL[name] == name
