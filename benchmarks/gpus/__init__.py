"""The claims that only a machine with a GPU can prove, in minutes: `python -m benchmarks.gpus`. Start in `__main__`.

`parts` has the measurements, `proof` their results and claims, `tables` how they are shown; `bench` runs batches and
reads their stores, `watch` samples NVML meanwhile; `contexts` and `ballast` are programs of their own. No setting of a
card is touched.
"""
