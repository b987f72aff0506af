"""The decisions, pure: events and the present instant in, records and commands out.

Not here: I/O, clocks, chance, anything that waits, or knowledge of LightGBM (its device type is a mere field).
Start with `scheduler.Scheduler.handle`, then `books` (the state that it changes) and `lifecycle` (the table of moves),
`attempts`, `requests` and `devices` (what events mean), `dispatch` (whose turn) and `placement`.
"""
