"""Replicas that cannot vouch for what they promised before their last start (safety S8).

After a power cut a log may end in garbage that may or may not have been acknowledged: entries, but
also a term or a vote. The host keeps what is readable and starts the replica as *doubtful*. A
doubtful replica takes part, but others rely on it only under these rules:

- Rule D1: its vote counts only when every voter has granted the same candidate. The candidate then
  has the longest log of all, and nobody remembers a newer term.
- Rule D2: its acknowledgements do not count towards a commit, a read or the quorum check, except
  for a leader that every voter elected after the start in question (rule D1). A promise to a newer
  leader may be among the things that it lost.
- Rule D3: what it acknowledged before its start is void: its leader starts over with it. This is
  the only case in which a `match` falls (rule T1).
- Rule D4: the doubt ends by the leader's word ("absolution"): an entry appended after the leader
  had learned of the start was committed without the replica's help (or under the exception of D2),
  and the replica holds it. The word names the boot, so that an old word absolves no later boot.
- Rule D6: it takes no commit index from a heartbeat. That index rests on what it acknowledged, for
  the leader may not know of the start yet, and in the place of what it lost may stand older entries
  that those had replaced. An append compares the logs first, so its commit index is good.

- Rule D5: a replica that does not know of its loss gives itself away: after a start it rejects an
  entry that it had acknowledged before. It does not count any more and is reported, to be replaced
  by a new replica under a new id.

Acknowledgements and votes therefore carry a stamp: the number of the boot, and whether it is in
doubt. Answers of an earlier boot than the newest that the leader knows are ignored. A host that
passes no boot numbers has no doubtful replicas, and nothing here costs it anything.
"""

from __future__ import annotations

from rakit.raft import messages
from rakit.raft.quorum import VoteResult
from rakit.raft.state import Raft
from rakit.raft.tracker import Progress
from rakit.raft.types import Message


def note_vote(raft: Raft, voter: int, stamp: bytes, *, granted: bool) -> None:
    """Notes a voter's answer to this candidate; the first one counts."""
    if voter in raft.votes:
        return
    raft.votes[voter] = granted
    boot, doubtful = messages.decode_stamp(stamp)
    if granted and doubtful:
        raft.votes_doubtful[voter] = boot


def tally(raft: Raft) -> VoteResult:
    """Tells how this candidate's election stands (rule D1)."""
    voters = raft.tracker.voters
    if not raft.votes_doubtful:
        return voters.vote_result(raft.votes)
    if _every_voter_granted(raft):
        return VoteResult.WON
    trusted = {
        voter: granted for voter, granted in raft.votes.items() if voter not in raft.votes_doubtful
    }
    result = voters.vote_result(trusted)
    everyone_answered = all(voter in raft.votes for voter in voters.ids)
    if result is VoteResult.PENDING and everyone_answered:
        return VoteResult.LOST
    return result


def _every_voter_granted(raft: Raft) -> bool:
    return all(raft.votes.get(voter) is True for voter in raft.tracker.voters.ids)


def begin_leadership(raft: Raft) -> None:
    """Notes whose doubt this election has overcome (rule D2); call before the votes go."""
    raft.elected_boots = dict(raft.votes_doubtful) if _every_voter_granted(raft) else {}
    own = raft.tracker.progress[raft.id]
    own.doubtful = raft.doubtful
    own.counts = not raft.doubtful or raft.id in raft.elected_boots


def committed_own_term(raft: Raft) -> None:
    """Ends the doubt of a leader: it holds an entry of its own term that is committed (D4)."""
    end_doubt(raft)
    own = raft.tracker.progress[raft.id]
    own.doubtful = False
    own.counts = True


def end_doubt(raft: Raft) -> None:
    """Lets this replica vouch for itself again."""
    raft.doubtful = False
    raft.stamp = messages.encode_stamp(raft.config.boot, doubtful=False)


def admit(raft: Raft, message: Message, progress: Progress) -> bool:
    """Tells whether a peer's answer may be taken, and learns from its stamp (rule D3)."""
    boot, doubtful = messages.decode_stamp(message.context)
    if boot < progress.boot:
        return False
    if boot > progress.boot:
        progress.boot = boot
        progress.boot_match = 0 if doubtful else progress.match
        if doubtful:
            progress.restart()
            progress.send_empty = True
            raft.append_pending = True
            progress.counts = raft.elected_boots.get(message.from_) == boot
            # 0 until an entry has been appended that the absolution can rest on.
            progress.absolve_index = 0
    progress.doubtful = doubtful
    if message.reject and message.index <= progress.boot_match:
        # Rejections of this boot about what an earlier one acknowledged; `match` may be higher by
        # now, and a rejection that is only late then says nothing.
        if not progress.lost_log:
            raft.lost_logs.append(message.from_)
        progress.lost_log = True
        progress.counts = False
    elif not doubtful and not progress.lost_log:
        progress.counts = True
    return True


def absolution(progress: Progress, committed: int) -> bytes:
    """Returns the word that ends the peer's doubt, or nothing (rule D4)."""
    if progress.doubtful and 0 < progress.absolve_index <= min(progress.match, committed):
        return messages.encode_boot(progress.boot)
    return b""


def absolves(raft: Raft, message: Message) -> bool:
    """Tells whether the leader's append carries the word for this boot."""
    return raft.doubtful and message.context == messages.encode_boot(raft.config.boot)
