"""Views: snapshots and deltas of the daemon, kept up to date. Pure.

Not here: drawing, sockets.
Start with `batch.BatchView`; `overview` is all batches and devices.
"""
