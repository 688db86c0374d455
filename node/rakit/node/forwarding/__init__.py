"""Batches on their way from the node that took them to the node that leads their group.

`link` is the sending end, one for each peer; `receiver` is the other end of the stream. `lanes`
keeps what must stay in order in order. The stream itself is `NodeService.ForwardProduce`.
"""
