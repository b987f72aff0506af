"""The other side of the fork: the launcher process and the window processes.

Not here: decisions, and imports that a window would pay for: whatever is imported here is in every process.
Start with `launcher`, which forks, then `child` (isolation) and `window` (runs the workload, commits its artifacts).
"""
