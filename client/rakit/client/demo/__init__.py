"""The demonstration behind `rakit demo`: real nodes, real data, a real crash, and honest counting.

`processes` runs nodes on loopback, `flights` fetches the data, `readback` reads it as any client
would, `verify` judges what was read, `run` tells the story and prints the table.
"""
