"""One function for each command: options in, exit code out.

Not here: parsing of options (`cli/parser.py`) and drawing (`client/drawing/`). Slow imports are
inside functions, so that `gpusched --version` is fast.
Start with `cli/parser.py`, whose table COMMANDS names the function of each command.
"""
