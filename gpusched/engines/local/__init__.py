"""This machine's engine: launcher processes and the window processes that they fork.

Not here: decisions, the database. `launcher` is the only module on the daemon's side that starts processes.
Start with `launcher.Launcher`, then `link` (the socket to one launcher) and `process` (one window's pipe and end).
"""
