"""The loop: hands events to the scheduler, commits its records, and only then carries out its commands.

Not here: sockets, signals, the forking of processes.
Start with `supervisor.Supervisor._turn`; `attempts` follows a process from launch to verdict, `survey` makes a batch's
plan, `index` keeps teacher_runs.json.
"""
