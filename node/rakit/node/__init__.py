"""The broker: metadata, partitions, services, and the process around them.

`metadata` keeps the registry of nodes and topics in one Raft group, `partition` turns the log of a
group into a log of records, `services` speak gRPC to clients and to other nodes, and `app` puts
them together on one `rakit.multiraft` host. `python -m rakit.node` runs a node.
"""
