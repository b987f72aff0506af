"""This machine's engine: launcher processes and the window processes that they fork.

Not here: decisions, the database. `early` is the only module that starts launcher processes.
Start with `engine.LocalEngine`; then `launcher`, `link` (the socket to one launcher) and `process` (one window).
"""
