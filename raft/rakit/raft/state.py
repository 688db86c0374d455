"""The state of one replica, and the few moves that every part of the algorithm makes.

`Raft` is data with invariants: terms, role, log, progress and the outboxes. What happens to it is
told by topic in the modules beside this one: `election`, `leader`, `replication`, `follower`,
`reads`, `membership`, and `raft` for what binds them. They are functions over this state, so that
each reads like the section of the paper that it stands for.

Invariants of `Raft`:

- `term` never falls; `vote` changes only from 0, or with the term (section 5.1; known bug 1).
- `role is LEADER` exactly if `lead == id`.
- `lead_transferee` is 0 unless this replica leads; while it is, the outbox tells nobody to stand.
- `term_start` is the index of a leader's own first entry; only entries from there on are committed
  by counting (section 5.4.2).
- `durable_term` and `durable_vote` are what the disk holds; they trail `term` and `vote`.

What may leave before the disk has caught up:

- A leader's own messages: its term and vote are durable already, and a follower's
  acknowledgement speaks for the follower's disk alone (dissertation 10.2.1).
- An answer to a heartbeat of a term that is durable here, and requests for a read, which promise
  nothing.
- Everything else waits, vote requests among them: a candidate that crashed could lose the log that
  it advertised, use the term again, and collect the old votes.
"""

from __future__ import annotations

import random
from typing import Final

from rakit.raft import confchange, messages, trace
from rakit.raft.config import Config
from rakit.raft.errors import ConfChangeInvalidError, ConfigurationLostError
from rakit.raft.log import RaftLog
from rakit.raft.read_only import ReadOnly
from rakit.raft.storage import LogStorage
from rakit.raft.tracker import Membership, Progress, Tracker, Window
from rakit.raft.types import (
    ConfState,
    DropKind,
    Dropped,
    Message,
    MessageType,
    ReadState,
    Role,
)

#: Kinds that need not wait for this replica's disk.
_SENT_AT_ONCE: Final = frozenset(
    {
        MessageType.APP,
        MessageType.HEARTBEAT,
        MessageType.SNAP,
        MessageType.TIMEOUT_NOW,
        MessageType.READ_INDEX,
        MessageType.READ_INDEX_RESP,
    }
)


class Raft:
    """One replica. Only the modules of this package touch it; hosts use `RawNode`."""

    __slots__ = (
        "_last_ack",
        "append_pending",
        "config",
        "doubtful",
        "dropped",
        "durable_term",
        "durable_vote",
        "elected_boots",
        "election_elapsed",
        "forwarded_reads",
        "heartbeat_elapsed",
        "id",
        "lead",
        "lead_transferee",
        "log",
        "lost_logs",
        "outbox",
        "outbox_durable",
        "pending_conf_index",
        "randomized_timeout",
        "read_states",
        "reads",
        "removed",
        "rng",
        "role",
        "sent_bytes",
        "stamp",
        "term",
        "term_start",
        "tracer",
        "tracker",
        "uncommitted_bytes",
        "vote",
        "votes",
        "votes_doubtful",
        "window",
    )

    def __init__(self, config: Config, storage: LogStorage) -> None:
        hard_state, conf_state = storage.initial_state()
        self.id = config.id
        self.config = config
        self.rng: random.Random = config.rng
        self.tracer: trace.Tracer | None = None
        self.log = RaftLog(
            storage,
            hard_state,
            config.applied,
            config.max_committed_bytes_per_ready,
            config.max_committed_entries_per_ready,
        )
        self.window = Window(config.max_inflight_messages, config.max_inflight_bytes)
        self.tracker = Tracker()

        self.term = hard_state.term
        self.vote = hard_state.vote
        self.durable_term = hard_state.term
        self.durable_vote = hard_state.vote
        self.role = Role.FOLLOWER
        self.lead = 0
        #: This replica may have lost what it once promised (safety S8, `doubt`).
        self.doubtful = config.doubtful
        #: What this replica's acknowledgements and votes carry to say so.
        self.stamp = messages.encode_stamp(config.boot, doubtful=config.doubtful)
        #: This replica was in the configuration and is not any more.
        self.removed = False

        # Clocks, in ticks.
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomized_timeout = 0

        # A candidate's count: answers so far, and which of them came from a doubtful replica
        # (voter -> number of its boot).
        self.votes: dict[int, bool] = {}
        self.votes_doubtful: dict[int, int] = {}

        # A leader's business.
        self.term_start = 0
        #: Boots of doubtful voters, if every voter elected this leader (rule D2).
        self.elected_boots: dict[int, int] = {}
        self.lead_transferee = 0
        #: No configuration change is proposed before this index is applied.
        self.pending_conf_index = 0
        #: Payload of this term's proposals that are not handed out as committed yet.
        self.uncommitted_bytes = 0
        #: Some peer may have to be sent something; looked into when a Ready is taken, so that
        #: proposals made together leave together.
        self.append_pending = False
        #: What was read and sent since the last Ready.
        self.sent_bytes = 0
        self.reads = ReadOnly()

        # Output that waits for the next Ready.
        self.outbox: list[Message] = []
        self.outbox_durable: list[Message] = []
        self._last_ack: Message | None = None
        self.read_states: list[ReadState] = []
        self.dropped: list[Dropped] = []
        #: Peers that were found without what they had acknowledged (rule D5 of `doubt`).
        self.lost_logs: list[int] = []
        #: Contexts of this follower's reads that its leader has not answered.
        self.forwarded_reads: list[bytes] = []
        self._begin(conf_state)

    def _begin(self, conf_state: ConfState) -> None:
        """Takes over the stored configuration; from here on there is something to trace."""
        try:
            self.install_membership(confchange.restore(conf_state))
        except ConfChangeInvalidError as error:
            raise ConfigurationLostError(f"the stored configuration: {error}") from error
        self.randomize_timeout()
        self.tracer = self.config.tracer
        if self.tracer is not None:
            trace.init_state(self)

    # Sending.

    def post(self, message: Message) -> None:
        """Queues a message: to leave at once, or after the disk has caught up."""
        assert message.to != self.id, "a replica does not write to itself"
        if message.type in _SENT_AT_ONCE or (
            message.type is MessageType.HEARTBEAT_RESP and self.durable_term == self.term
        ):
            self.outbox.append(message)
        else:
            self.outbox_durable.append(message)
        if self.tracer is not None:
            trace.sent(self, message)

    def post_ack(self, message: Message) -> None:
        """Queues an acknowledgement, which speaks for earlier ones that still wait.

        Acknowledgements of one term to one leader subsume each other: the highest index says all.
        """
        last = self._last_ack
        if last is not None and last.to == message.to and last.term == message.term:
            last.index = max(last.index, message.index)
            last.context = message.context
        else:
            self._last_ack = last = message
            self.outbox_durable.append(message)
        if self.tracer is not None:
            trace.sent(self, last)

    def take_messages(self) -> tuple[list[Message], list[Message]]:
        """Empties the outboxes: what may leave at once, and what waits for the disk."""
        # New lists even where the old ones are empty: a Ready must not share its list with the next
        # one, or an acknowledgement would leave with an earlier Ready's sync.
        now, later = self.outbox, self.outbox_durable
        self.outbox, self.outbox_durable = [], []
        self._last_ack = None
        return now, later

    # Roles.

    def become_follower(self, term: int, lead: int) -> None:
        """Follows `lead` (0: nobody yet) in `term` (5.1)."""
        assert lead != self.id, "a follower does not lead itself"
        was_leader = self.role is Role.LEADER
        self.reset(term)
        self.role = Role.FOLLOWER
        self.lead = lead
        if self.tracer is not None:
            trace.became(self)
        if was_leader:
            # Progress says nothing any more; let go of what the windows hold.
            for _, progress in self.tracker.peers:
                progress.inflights.clear()

    def reset(self, term: int) -> None:
        """Enters `term` (perhaps the current one) without a role: elections start here."""
        assert term >= self.term, "a term never falls"
        if self.role is Role.LEADER:
            self._give_up_leadership()
        if term > self.term:
            self.term = term
            self.vote = 0
        self.forget_leader()
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomize_timeout()
        self.votes.clear()
        self.votes_doubtful.clear()
        self.append_pending = False
        assert self.durable_term <= self.term, "the disk holds a term that nobody was in"

    def forget_leader(self) -> None:
        """Follows nobody; reads that wait for the old leader's answer are given up."""
        self.lead = 0
        for context in self.forwarded_reads:
            self.dropped.append(Dropped(DropKind.READ, context=context))
        self.forwarded_reads.clear()

    def _give_up_leadership(self) -> None:
        """Tells everyone who waits that this leader will not answer."""
        if self.log.last_index > self.log.committed:
            self.dropped.append(
                Dropped(DropKind.PROPOSALS, term=self.term, index=self.log.committed)
            )
        for requester, context in self.reads.abandon():
            if requester == self.id:
                self.dropped.append(Dropped(DropKind.READ, context=context))
            else:
                self.post(messages.read_index_refusal(requester, self.id, self.term, context))
        self.forget_transfer()
        self.uncommitted_bytes = 0
        self.pending_conf_index = 0
        self.term_start = 0
        self.elected_boots = {}

    def forget_transfer(self) -> None:
        """Hands leadership to nobody: a word to the target that has not left does not leave."""
        if self.lead_transferee:
            self.lead_transferee = 0
            self.outbox = [each for each in self.outbox if each.type is not MessageType.TIMEOUT_NOW]

    def randomize_timeout(self) -> None:
        """Draws the next election timeout from [E, 2E) (section 5.2)."""
        election_tick = self.config.election_tick
        self.randomized_timeout = election_tick + self.rng.randrange(election_tick)

    # Membership.

    @property
    def is_member(self) -> bool:
        """Whether the applied configuration has a part for this replica (safety S2)."""
        return self.id in self.tracker.progress

    @property
    def promotable(self) -> bool:
        """Whether this replica may stand for election at all."""
        own = self.tracker.progress.get(self.id)
        return own is not None and not own.is_learner and self.log.unstable.snapshot is None

    def install_membership(self, membership: Membership) -> None:
        """Takes over a configuration (section 6), keeping the progress of those who stay."""
        if self.tracer is not None:
            trace.apply_conf_change(self, membership)
        was_member = self.is_member
        old = self.tracker.progress
        learners = membership.learners
        progress: dict[int, Progress] = {}
        for id_ in membership.ids:
            kept = old.get(id_)
            if kept is None:
                # A new peer is probed at the end of the log; its rejection tells where it is.
                kept = Progress(
                    0, self.log.last_index + 1, self.window.make(), learner=id_ in learners
                )
                kept.send_empty = True
            kept.is_learner = id_ in learners
            progress[id_] = kept
        self.tracker.install(self.id, membership, progress)
        self.removed = (was_member or self.removed) and not self.is_member
