"""A batch without a daemon: `gpusched run` and `gpusched plan`, each with its own supervisor.

Not here: drawing, which is in `client/`.
Start with `run.run_batch`; `course` knows whether a run can go on, `watched` serves the screen of `run --top`.
"""
