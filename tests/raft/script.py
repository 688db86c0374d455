"""The language of the scripts in `scripts/`: one command in a line, its output below it.

A script is a sequence of blocks:

    # what this shows
    > propose 1 hello
    > ready 1
    ready 4 sync
      send 1->2 APP ...

Lines with `>` are commands; what follows is the expected output, in order, up to the next command.
`RAKIT_REWRITE_SCRIPTS=1` writes what came out into the file instead of comparing; read the
difference before you keep it.

Nothing happens on its own: a message waits until `deliver` or `stabilize`, a write is durable only
after `persist` or `stabilize`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from rakit.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    Message,
    RaftError,
)
from rakit.raft.describe import (
    conf_state_text,
    entries_text,
    message_text,
    peer_text,
    ready_text,
)
from tests.raft.network import Network, Replica

_STEPS = {
    "v": ConfChangeType.ADD_VOTER,
    "l": ConfChangeType.ADD_LEARNER,
    "r": ConfChangeType.REMOVE,
}


def run_script(text: str) -> str:
    """Runs a script and returns it with the output that it produced."""
    interpreter = Interpreter()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            lines.append(line)
        elif line.startswith(">"):
            lines.append(line)
            lines += interpreter.run(line[1:].strip())
    return "\n".join(lines) + "\n"


def parse_change(words: list[str]) -> ConfChange:
    """Reads `v4 l5 r2 [implicit|explicit]`; no words leave a joint configuration."""
    transition = ConfChangeTransition.AUTO
    steps: list[ConfChangeSingle] = []
    for word in words:
        if word in {"implicit", "explicit"}:
            transition = ConfChangeTransition[f"JOINT_{word.upper()}"]
        else:
            steps.append(ConfChangeSingle(_STEPS[word[0]], int(word[1:])))
    return ConfChange(tuple(steps), transition)


class Interpreter:
    """Runs commands on a network."""

    def __init__(self) -> None:
        self.network = Network(())
        self.out: list[str] = []

    def run(self, line: str) -> list[str]:
        """Runs one command and returns its output."""
        self.out = []
        name, *words = shlex.split(line)
        command: Callable[[list[str]], None] = getattr(self, f"do_{name.replace('-', '_')}")
        try:
            command(words)
        except RaftError as error:
            self.out.append(f"{type(error).__name__}: {error}")
        return self.out

    def _replica(self, word: str) -> Replica:
        return self.network.replicas[int(word)]

    # The group.

    def do_group(self, words: list[str]) -> None:
        """group VOTERS [learners=IDS] [born=IDS] [option=value...]: starts a new group."""
        options = dict(word.split("=", 1) for word in words[1:])
        learners = _ids(options.pop("learners", ""))
        born = _ids(options.pop("born")) if "born" in options else None
        values = {name: _value(value) for name, value in options.items()}
        self.network = Network(_ids(words[0]), learners=learners, born=born, **values)

    def do_add(self, words: list[str]) -> None:
        """add ID...: starts replicas that know nothing."""
        for word in words:
            self.network.add(int(word), None)

    def do_crash(self, words: list[str]) -> None:
        """crash ID [keep=N] [option=value...]: loses what is not synced, starts again."""
        options = {name: _value(value) for name, value in (w.split("=", 1) for w in words[1:])}
        keep = options.pop("keep", 0)
        self._replica(words[0]).crash(keep=keep, **options)

    def do_compact(self, words: list[str]) -> None:
        """compact ID INDEX: makes a base as of INDEX and drops what is before it."""
        self.network.offer_base(int(words[0]), int(words[1]))

    # Inputs.

    def do_campaign(self, words: list[str]) -> None:
        if not self._replica(words[0]).node.campaign():
            self.out.append("does not stand")

    def do_propose(self, words: list[str]) -> None:
        term, index = self._replica(words[0]).node.propose_batch([w.encode() for w in words[1:]])
        self.out.append(f"{term}/{index}")

    def do_change(self, words: list[str]) -> None:
        """change ID v4 l5 r2 [implicit|explicit]: proposes a change; nothing: leave joint."""
        change = parse_change(words[1:])
        term, index = self._replica(words[0]).node.propose_conf_change(change)
        self.out.append(f"{term}/{index}")

    def do_tick(self, words: list[str]) -> None:
        for _ in range(int(words[1]) if len(words) > 1 else 1):
            self._replica(words[0]).node.tick()

    def do_tick_quiesced(self, words: list[str]) -> None:
        for _ in range(int(words[1])):
            self._replica(words[0]).node.tick_quiesced()

    def do_time_out(self, words: list[str]) -> None:
        """time-out ID: ticks until the replica stands for election."""
        replica = self._replica(words[0])
        raft = replica.node._raft
        for _ in range(raft.randomized_timeout - raft.election_elapsed):
            replica.node.tick()

    def do_transfer(self, words: list[str]) -> None:
        self._replica(words[0]).node.transfer_leader(int(words[1]))

    def do_read(self, words: list[str]) -> None:
        self._replica(words[0]).node.read_index(words[1].encode())

    def do_forget_leader(self, words: list[str]) -> None:
        for word in words:
            self._replica(word).node.forget_leader()

    def do_step_down(self, words: list[str]) -> None:
        self._replica(words[0]).node.step_down()

    def do_unreachable(self, words: list[str]) -> None:
        self._replica(words[0]).node.report_unreachable(int(words[1]))

    def do_reachable(self, words: list[str]) -> None:
        self._replica(words[0]).node.report_reachable(int(words[1]))

    def do_snapshot_failed(self, words: list[str]) -> None:
        self._replica(words[0]).node.report_snapshot(int(words[1]), ok=False)

    # The host and the network.

    def do_ready(self, words: list[str]) -> None:
        """ready ID: takes one Ready, writes and applies; nothing is synced yet."""
        replica = self._replica(words[0])
        if not replica.node.has_ready():
            self.out.append("nothing to do")
            return
        ready = replica.take()
        self.out += ready_text(ready)
        self.network.send(ready.messages)
        self.network.check()

    def do_persist(self, words: list[str]) -> None:
        """persist ID [COUNT]: the oldest Readys in flight are durable."""
        replica = self._replica(words[0])
        count = int(words[1]) if len(words) > 1 else len(replica.flights)
        messages = replica.persist(count)
        self.out += [message_text(message) for message in messages]
        self.network.send(messages)
        self.network.check()

    def do_deliver(self, words: list[str]) -> None:
        """deliver [A->B | ->B | KIND ...]: hands over the pending messages that match."""
        for message in self._select(words):
            self.out.append(message_text(message))
            self.network.deliver(message)

    def do_drop(self, words: list[str]) -> None:
        """drop [A->B | ->B | KIND ...]: loses the pending messages that match."""
        for message in self._select(words):
            self.out.append(message_text(message))

    def do_again(self, words: list[str]) -> None:
        """again [...]: hands over the pending messages that match and keeps them: duplicates."""
        kept = self._select(words)
        for message in kept:
            self.out.append(message_text(message))
            self.network.deliver(message)
        self.network.pending = kept + self.network.pending

    def _select(self, words: list[str]) -> list[Message]:
        def matches(message: Message) -> bool:
            for word in words:
                sender, arrow, to = word.partition("->")
                if not arrow:
                    if message.type.name != word:
                        return False
                elif (sender and message.from_ != int(sender)) or (to and message.to != int(to)):
                    return False
            return True

        chosen = [message for message in self.network.pending if matches(message)]
        self.network.pending = [m for m in self.network.pending if not matches(m)]
        return chosen

    def do_stabilize(self, words: list[str]) -> None:
        """stabilize [quiet] [ID...]: hosts and network work until nothing is left to do."""
        quiet = "quiet" in words
        ids = [int(word) for word in words if word != "quiet"] or sorted(self.network.replicas)
        for _ in range(200):
            for replica_id in ids:
                for ready in self.network.process(replica_id):
                    if not quiet:
                        first, *rest = ready_text(ready)
                        self.out += [f"{replica_id}: {first}", *rest]
            messages = [m for m in self.network.pending if m.to in ids]
            if not messages:
                return
            self.network.pending = [m for m in self.network.pending if m.to not in ids]
            for message in messages:
                self.network.deliver(message)
        raise AssertionError("the group does not come to rest")

    def do_cut(self, words: list[str]) -> None:
        """cut A->B | A-B | A...: cuts one way, both ways, or a replica off from all."""
        for word in words:
            if "->" in word:
                a, b = word.split("->")
                self.network.cut_one_way(int(a), int(b))
            elif "-" in word:
                a, b = word.split("-")
                self.network.cut(int(a), int(b))
            else:
                self.network.isolate(int(word))

    def do_heal(self, words: list[str]) -> None:
        assert not words
        self.network.heal()

    # Questions.

    def do_status(self, words: list[str]) -> None:
        for word in words:
            status = self._replica(word).node.basic_status()
            line = (
                f"{word}: {status.role.name} term={status.term} vote={status.vote}"
                f" lead={status.lead} commit={status.commit} applied={status.applied}"
                f" durable={status.durable_index} last={status.last_index}"
            )
            flags = ("leader_ready", "removed", "doubtful")
            self.out.append(" ".join([line, *(flag for flag in flags if getattr(status, flag))]))

    def do_peers(self, words: list[str]) -> None:
        self.out += [peer_text(peer) for peer in self._replica(words[0]).node.status().peers]

    def do_conf(self, words: list[str]) -> None:
        for word in words:
            state = self._replica(word).node.status().conf_state
            self.out.append(f"{word}: {conf_state_text(state)}")

    def do_log(self, words: list[str]) -> None:
        for word in words:
            log = self._replica(word).node._raft.log
            entries = (
                log.slice(log.first_index, log.last_index + 1, 1 << 20)
                if log.last_index >= log.first_index
                else []
            )
            self.out.append(f"{word}: {entries_text(entries)}")

    def do_applied(self, words: list[str]) -> None:
        for word in words:
            commands = b" ".join(self._replica(word).commands).decode()
            self.out.append(f"{word}: {commands}")

    def do_quiesce(self, words: list[str]) -> None:
        status = self._replica(words[0]).node.can_quiesce()
        verdict = "idle" if status.idle else status.reason
        self.out.append(f"{verdict}; term={status.term} commit={status.commit}")
        self.out += [f"lagging {peer}" for peer in status.lagging]


def _ids(word: str) -> list[int]:
    return [int(part) for part in word.split(",") if part]


def _value(word: str) -> int:
    return {"true": True, "false": False}[word] if word in {"true", "false"} else int(word)
