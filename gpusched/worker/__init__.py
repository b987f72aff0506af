"""The other side of the fork: the launcher process and the window processes.

Not here: decisions, and imports that a window does not need, since every process has every module imported here. Start
with `launcher`, which forks, then `child` (isolation) and `window` (runs the workload, commits its artifacts).
"""
