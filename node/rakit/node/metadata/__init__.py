"""The metadata group: what the cluster consists of, how it comes to be, and who keeps it so.

Four layers, each usable without the ones after it:

- State. `registry` holds nodes, topics and partitions; `nodes` and `topics` apply commands to it,
  `placement` decides where replicas go, `tables` and `topic_config` are parts of it, `state` writes
  it to checkpoints, and `machine` is the replicated state machine around all that.
- Formation. `founding` decides, without effects, how empty nodes become one cluster (S26);
  `formation` is its disk and network, and how a later node joins.
- Use. `commands` makes commands of client requests; `client` proposes them wherever the leader is,
  and reads linearizably (S22).
- Upkeep. `steps` decides the next configuration change of a group; `admission` admits nodes on the
  leader; `evictions` has damaged replicas replaced and `sparing` says whether a whole store can be
  spared, both by `soundness`; `caretaker`, `replicas` and `directory` are the tasks that bring
  groups to what the registry says, `servicer` is what members ask each other, and `service` starts
  and stops everything.
"""
