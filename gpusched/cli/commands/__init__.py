"""One function for each command: options in, exit code out.

Not here: parsing of options (`cli/parser.py`) and drawing (`client/drawing/`). Imports that take
long are inside functions, since `gpusched --version` should not.
Start with `cli/parser.py`, whose table COMMANDS names the function of each command.
"""
