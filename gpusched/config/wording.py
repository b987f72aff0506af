"""The type and the bounds of a setting in words, as an error tells them."""

from __future__ import annotations

from typing import Any


def wanted(hint: Any) -> str:
    """The values that a setting accepts, in words."""
    from msgspec import inspect  # slow to import, and needed for errors only

    return _worded(inspect.type_info(hint), inspect)


def _worded(kind: Any, inspect: Any) -> str:
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=schema):
            return str((schema or {}).get("description") or _worded(inner, inspect))
        case inspect.UnionType(types=types):
            return " or ".join(_worded(one, inspect) for one in types if not isinstance(one, inspect.NoneType))
        case inspect.LiteralType(values=values):
            return " or ".join(f'"{value}"' for value in values)
        case inspect.BoolType():
            return "true or false"
        case inspect.DateType():
            return "a date such as 2022-01-31"
        case inspect.IntType(ge=ge, le=le):
            return f"a whole number from {ge}" + (f" to {le}" if le is not None else "")
        case inspect.FloatType(ge=ge, gt=gt, le=le, lt=lt):
            low = f"at least {ge:.15g}" if ge is not None else f"above {gt:.15g}"
            return f"a number {low} and " + (f"at most {le:.15g}" if le is not None else f"below {lt:.15g}")
    return "text"
