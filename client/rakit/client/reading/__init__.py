"""The reading half of the SDK.

`reader` is what users hold; `progress` knows, purely, what each partition has delivered; `source`
is one stream from one node.
"""
