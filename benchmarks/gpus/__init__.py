"""What only a machine with a GPU can prove, in minutes: `python -m benchmarks.gpus`. Start in `__main__`.

`proof` has what each part measures, `bench` how a batch is run and what its store says, `watch` what NVML says
meanwhile; `contexts` and `ballast` are programs of their own. No setting of a card is touched.
"""
