"""The Ray engine: windows run on the nodes of a Ray cluster, each with a launcher of its own.

`engine` is the daemon's side; `bridge` the Ray driver, a process in the cluster's interpreter; `node` the actor that
reserves a node, whose child, `agent`, holds that machine's local engine. Not here: what windows do.
Start with `frames`, which says what they tell each other; only `bridge` imports ray.
"""
