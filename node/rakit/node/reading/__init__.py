"""From positions to records: here, on other nodes, and in the form that the client asked for.

`local` reads the partitions that this node leads, `fetcher` joins this node and others into one
answer, `render` turns stored batches into what goes on the wire.
"""
