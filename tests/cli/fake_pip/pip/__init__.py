"""Stands in for pip, whose commands write what FAKE_PIP says: a directory with `plan.json` and `calls`."""
