"""The engines that run windows: `engine.Engine` is their contract, and the local engine forks them on this machine.

Not here: the choice of the next window, and the meaning of an end.
Start with `engine.Engine`; `condition` is the list of troubles that everybody shows.
"""
