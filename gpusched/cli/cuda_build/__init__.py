"""`gpusched doctor --build-cuda`: LightGBM with CUDA, built beside the installed one, tried, and put in its place.

Not here: the doctor's own findings (`cli/commands/findings.py`).
Start with `command`, then `workshop` (build, try, replace, put back) and `toolkit` (the compilers of this machine).
"""
