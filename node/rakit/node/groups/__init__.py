"""Consumer groups: members share the partitions of topics, and the group remembers how far it is.

The pure half: `state` and `machine` are what an internal partition replicates, `assignor` says who
is to have what, `reconcile` what the next change towards that is. The rim: `coordinator` is the
leader's side of one internal partition, `client` every node's way to it.
"""
