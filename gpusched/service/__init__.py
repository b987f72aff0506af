"""The daemon's interface: its socket, its requests, its place under systemd.

Not here: anything of the client's side, which shares only `gpusched.protocol`.
Start with `main.serve`, then `server` (conversations), `requests` (one answer each) and `admission` (new batches).
"""
