"""The loop: hands events to the scheduler, commits its records, and only then carries out its commands.

Not here: sockets, signals, the forking of processes.
Start with `runtime.Runtime`, which puts everything together, and `supervisor.Supervisor._turn`; `attempts` follows a
process from launch to verdict, `planner` makes a batch's plan, and `followers` are all who hear of what happens.
"""
