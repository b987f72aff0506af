"""`gpusched doctor --build-cuda`: build LightGBM with CUDA beside the installed one, try it, and replace that.

Not here: the doctor's own findings (`cli/commands/findings.py`).
Start with `command`, then `workshop` (build, try, replace, put back) and `toolkit` (the compilers of this machine).
"""
