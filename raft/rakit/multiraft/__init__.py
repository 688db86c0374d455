"""The host of many Raft groups in one process.

Two halves. The pure half turns messages, ticks and disk completions into sends, one write batch
and completions (safety S19): `driver` steps the groups, `group` is one replica, `log_storage` and
`checkpoint` are what it keeps on disk, `quiesce` lets idle groups cost nothing. It has no task, no
clock, no socket and no file, so that the simulator runs it unchanged. The other half is the
asyncio shell around it (`host`, `transport`, `liveness`) and the store (`store`).
"""
