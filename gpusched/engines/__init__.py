"""The engines that run windows. The local engine forks them on this machine.

Not here: the choice of the next window, and the meaning of an end.
Start with `local/launcher.Launcher.fork`; `condition` is the list of troubles that everybody shows.
"""
