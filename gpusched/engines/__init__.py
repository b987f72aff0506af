"""Where windows run. The local engine forks them on this machine.

Not here: which window runs next, and what an end means.
Start with `local/launcher.Launcher.fork`; `condition` is the list of troubles that everybody shows.
"""
