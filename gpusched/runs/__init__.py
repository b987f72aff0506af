"""A batch without a daemon: `gpusched run` and `gpusched plan` on a supervisor of their own.

Not here: drawing, which is the client's.
Start with `run.run_batch`; `watched` serves the screen of `run --top`.
"""
