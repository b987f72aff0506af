"""Stands in for pip, whose commands follow FAKE_PIP: a directory with `plan.json` and `calls`."""
