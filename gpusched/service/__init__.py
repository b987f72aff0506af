"""The daemon's face: its socket, its requests, its place under systemd.

Not here: anything of the client's side (they share `gpusched.protocol` and nothing else).
Start with `main.serve`, then `server` (conversations), `requests` (one answer each) and `admission` (what is accepted).
"""
