"""Keep every GPU of a machine busy with thousands of short, isolated LightGBM trainings, and lose nothing."""

__version__ = "0.1.0"
