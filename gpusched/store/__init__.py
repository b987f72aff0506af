"""The database: every step of a window, committed before it is taken.

Not here: decisions, files other than the database. `store` is the only module that imports sqlite3.
Start with `store.Store.record`, which commits one turn of the supervisor; `migrations/` has the schema by version.
"""
