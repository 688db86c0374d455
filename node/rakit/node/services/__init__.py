"""gRPC services: between the wire and the domain, and nothing else.

`handlers` turns raw bytes into calls and exceptions into statuses; the other modules hold one
service each, or the part of one that is worth its own page.
"""
