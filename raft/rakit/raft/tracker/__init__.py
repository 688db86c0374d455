"""What a leader knows about its peers: how far each one is, and what is on its way to it."""

from rakit.raft.tracker.inflights import Inflights
from rakit.raft.tracker.progress import Progress, ProgressState
from rakit.raft.tracker.tracker import Membership, Tracker, Window

__all__ = ["Inflights", "Membership", "Progress", "ProgressState", "Tracker", "Window"]
