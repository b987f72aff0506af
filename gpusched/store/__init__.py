"""The database: every step of a window, committed before it is taken.

Not here: decisions, files other than the database. No other room imports sqlite3.
Start with `store.Store.record`, which commits one turn of the supervisor (`turns` writes it). `opening` makes sure of
the file, `database` holds it while it is open, and `migrations/` has the schema by version.
"""

#: the name of the file, within a state directory
STORE = "state.db"
