"""Writes the table of docs/RAFT.md that names all mutants; to be run when one was added."""

from __future__ import annotations

from tests.mutants.listed import write

write()
