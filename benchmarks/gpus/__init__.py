"""The claims that only a machine with a GPU can prove, in minutes: `python -m benchmarks.gpus`. Start in `__main__`.

`proof` has the parts and their measurements, `bench` runs batches and reads their stores, `watch` samples NVML
meanwhile; `contexts` and `ballast` are programs of their own. No setting of a card is touched.
"""
