"""rakit beside its peers, on one machine in one run: `make bench-peers`.

What is compared: three nodes with three replicas of rakit, Kafka, NATS JetStream and RabbitMQ, each
driven by its own best Python client, and with them what the machine allows (a bare pipeline, bare
gRPC, the bare disk). `works` is what is measured, `systems/` who is measured and how it is driven,
`measuring` how, `schedule` in which order, `results` where figures are kept, `bars` what rakit
should reach, `verdicts` whether it does, `table` and `plot` what a person sees.

Rules:

- One system is alive at a time. Rounds are interleaved, every other one in reverse order, so that a
  machine that changes its speed changes it for all.
- Memory is full of the file system's cache before each measurement (`memory`), or the machine's
  spare pages would decide.
- Each measurement is a process of its own (`worker`) with a cluster of its own on empty
  directories, and prints one line of JSON. What it started, it ends.
- Only what was acknowledged counts, and only if it is there: in the end the records in the log are
  counted, and fewer than were acknowledged make the measurement fail.
- rakit always runs as it ships: fsync on a majority, idempotent. Peers run at their defaults, and
  as systems of their own with fsync before the acknowledgement where they have it; a client's
  settings are those that were found best for it, and where that depends, all are measured and the
  best counts.
- A ratio is judged by the lower end of its 95 % interval over paired rounds (`intervals`), against
  every peer, so by the best one.
- Clients and nodes share the machine; the client's CPU is told beside that of the nodes.
"""
