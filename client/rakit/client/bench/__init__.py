"""Measures a cluster and prints figures that can be compared: `rakit bench`.

`figures` and `pacing` are the pure half: percentiles, and when an open loop owes its sends.
`report` is what a measurement comes to. `target` is the cluster that is measured, `usage` what its
processes take, `meter` what the SDK acknowledges. `disk`, `echo` and `pipeline` are the references.
Then one module for each command: `produce`, `latency`, `failover`, `idle`, `start`, and
`everything` for all of these; `groups`, which takes longer, with its parts `population`, `busy` and
`loss`; `read`, `group` with its `members`, `unary`, `restart`, and `growth`, which is `produce` at
many points.

Rules:

- A figure without something to hold it against says more about the machine than about rakit. So a
  run measures, beside rakit, what the bare disk, bare gRPC and a bare pipeline do with the same
  bytes, and gives the ratio. Absolute figures of a shared machine vary by a third from hour to
  hour, ratios do not.
- What is counted is what was acknowledged: fsynced by a majority of the replicas.
- Load goes through the SDK as an application would send it, from one process on the same machine.
- A measurement that failed in any part gives no figure: an error ends the run.

Left out: profiles (py-spy does that better from outside), comparisons over time, and those
with other systems, which `make bench-peers` measures.
"""
