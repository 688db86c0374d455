"""Checks a trace of the Raft core against the specification of Raft, step by step.

Independent on purpose: it imports nothing of `rakit` and knows nothing but the lines of a trace
(`rakit.raft.trace` says what stands in them). It plays each replica through in a model of its own
(`model`) and demands of every event that the specification has an action which leads there:

    lines       a trace as a file
    events      its events, read and checked for their form
    confs       configurations: majorities of both halves, and what follows a change (section 6)
    model       what the checker knows of a replica and of its log
    history     what it knows of the group: all that was sent, made and committed
    rules       every rule that can be broken, with its section of the paper
    group       one group: which event is judged where
    elections   terms, votes, who leads
    appends     what leaders send, what followers make of it, what answers claim
    commits     commit indexes, and what is committed for ever
    members     changes of the configuration
    restarts    what a replica starts from, and what a crash may not have taken

A trace holds all replicas of a group in causal order, from their first start on. Messages may be
lost, repeated and reordered. What a replica shows is never believed: each state must be the one
before it, changed by what the event may change and nothing else.

Where rakit departs from the specification on purpose, that is a rule of its own, or a leave that is
given where it is needed, with the reason (`rules`, second half).
"""
