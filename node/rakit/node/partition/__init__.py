"""One partition on this node: batches in, records out, and the replicated state between them.

From the outside in:

- `batches`, `columns`, `codecs`: the gate. What passes is stored as it was sent; `stored` is the
  way back out, `hashing` says which partition a key belongs to.
- `partition`: the rim that services call. Under it `appender` and `pending` take batches for the
  leader, `reader` and `polling` give them out, `inquiry` tells what became of one, `retention` and
  `digest` look after the log. `surroundings` is what they need of the host.
- `machine`: the replicated state machine, over `state`, `producers`, `commands`, `snapshots` and
  `positions`. Pure, and run unchanged by the simulator.

The Raft log is the partition's log: a record is stored once, and cutting the Raft log is retention.
"""
