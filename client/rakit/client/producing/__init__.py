"""The producing half of the SDK.

`producer` is what users hold; `intake` checks what they hand over; `room` bounds what is not
acknowledged; `batch` gathers records; `lane` decides, purely, the order of one partition; `link` is
one stream to one node; `engine` connects lanes with links; `failures` remembers what nobody has
heard of.
"""
