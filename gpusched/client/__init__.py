"""The client's side: what asks the daemon, knows its answers and shows them.

Not here: anything of the service's side (they share `gpusched.protocol` and nothing else), pandas, LightGBM.
Start with `connection.Connection`; `views/` keeps the news, `drawing/` draws one frame, `top/` is the live screen.
"""
