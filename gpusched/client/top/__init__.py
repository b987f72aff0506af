"""`gpusched top`: pages, keys and boxes on Textual.

Not here: how things are drawn (`drawing/`), what is known (`views/`).
Start with `app.Top`, then `page.Page` and the pages in `lists` and `details`.
"""
