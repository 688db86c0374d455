"""One partition on this node: batches in, records out, and the replicated state between them."""
