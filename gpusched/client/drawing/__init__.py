"""One frame of each thing that is shown, as rich renderables made from views.

Not here: state, keys, sockets. Whatever comes from a file or a user is cleaned (`plain.clean`) before it is drawn.
Start with `listing` (tables for people, tab-separated text for programs) and `dashboard` (the frame of `top`).
"""
