"""The producing half of the SDK.

`producer` is what users hold; `batch` gathers records; `lane` decides, purely, the order of one
partition; `link` is one stream to one node; `engine` connects lanes with links.
"""
