"""The decisions, pure: events and the present instant in, records and commands out.

Not here: I/O, clocks, chance, anything that waits, or knowledge of LightGBM (its device type is a mere field).
Start with `scheduler.Scheduler.handle`, then `lifecycle` (the table of moves), `dispatch` (whose turn) and `placement`.
"""
