"""Bugs that are put back into the code one at a time, to prove that tests see them.

The simulator has plants of its own (`tests.sim.plants`). Here are the bugs that it cannot meet, or
would meet by luck only: each mutant changes a piece of one function, and names the tests that must
fail by it. A test that goes on passing does not test what it says.

A mutant is text: what stands in the source now, exactly once, and what stands there instead. When
the code changes so that the text is gone, the mutant has to be written anew. The function keeps its
identity and only its code is exchanged, so whoever has imported it runs the mutant too.

One module for each part of the system; `tests.mutants.listed` has them all.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, NamedTuple


class Edit(NamedTuple):
    """One piece of one function, and what stands in its place."""

    of: Callable[..., Any] | property
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug, the family of docs/RAFT.md that it is of, and the tests that fail by it."""

    name: str
    family: int
    #: Where it was shipped, or the rule that it breaks.
    seen: str
    edits: tuple[Edit, ...]
    #: Below `tests/`; each fails by an assertion, in one of its cases at least.
    tests: tuple[str, ...]


def mutant(
    name: str,
    family: int,
    seen: str,
    edit: tuple[Callable[..., Any] | property, str, str],
    *tests: str,
    also: tuple[Callable[..., Any] | property, str, str] | None = None,
) -> Mutant:
    """Describes a mutant; `also` is a second place that it takes."""
    edits = (Edit(*edit),) if also is None else (Edit(*edit), Edit(*also))
    return Mutant(name, family, seen, edits, tests)


def named_in(path: str) -> Callable[[str], str]:
    """Returns what makes the name of a test of a module out of what it shows."""
    return lambda shows: f"{path}::test_{shows}"


@contextmanager
def in_force(one: Mutant) -> Generator[None]:
    """Lets the bug be there for a while."""
    by_function: dict[FunctionType, list[Edit]] = {}
    for edit in one.edits:
        by_function.setdefault(_function(edit.of), []).append(edit)
    with ExitStack() as stack:
        for function, edits in by_function.items():
            stack.callback(setattr, function, "__code__", function.__code__)
            function.__code__ = _edited(function, edits)
        yield


def _function(of: Callable[..., Any] | property) -> FunctionType:
    found = of.fget if isinstance(of, property) else of
    assert isinstance(found, FunctionType), f"{found} is no function of Python"
    return found


def _edited(function: FunctionType, edits: list[Edit]) -> CodeType:
    source = inspect.getsource(function)
    for edit in edits:
        count = source.count(edit.old)
        assert count == 1, f"{edit.old!r} stands {count} times in {function.__qualname__}"
        source = source.replace(edit.old, edit.new)
    tree = ast.parse(textwrap.dedent(source))
    (defined,) = tree.body
    assert isinstance(defined, ast.FunctionDef | ast.AsyncFunctionDef), "a mutant is one function"
    defined.decorator_list.clear()
    ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    module = compile(tree, function.__code__.co_filename, "exec", dont_inherit=True)
    consts = (each for each in module.co_consts if isinstance(each, CodeType))
    code = next(each for each in consts if each.co_name == defined.name)
    assert code.co_freevars == function.__code__.co_freevars, "a mutant closes over nothing else"
    return code
