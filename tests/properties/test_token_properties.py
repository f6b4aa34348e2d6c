"""Tokens against a model: any sequence of linking, cancelling, removing and forgetting."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hother.cancelable import Cancelation, CancelationReason, CancelationToken

REASONS = st.sampled_from(CancelationReason)


@dataclass(eq=False)
class Node:
    """What the model knows of a token."""

    token: CancelationToken | None  #: None once it was forgotten
    parents: list[Node]
    children: list[Node] = field(default_factory=list)
    causes: list[Cancelation] = field(default_factory=list)

    @property
    def cancelation(self) -> Cancelation | None:
        return self.causes[0] if self.causes else None

    @property
    def is_alive(self) -> bool:
        """Whether somebody holds the token: the test, or a child, which listens to it."""
        return self.token is not None or any(child.is_alive for child in self.children)

    @property
    def links(self) -> int:
        """How many links to children are on the token."""
        return sum(child.is_alive for child in self.children)

    def cancel(self, cancelation: Cancelation) -> None:
        if self.is_alive and not any(cause is cancelation for cause in self.causes):
            if len(self.causes) < 16:
                self.causes.append(cancelation)
            for child in self.children:
                child.cancel(cancelation)


@dataclass(eq=False)
class Added:
    """What the model knows of a callback."""

    node: Node
    calls: list[Cancelation]
    removed: bool = False  #: before it ran

    @property
    def is_waiting(self) -> bool:
        return not self.removed and self.node.cancelation is None


class Tokens(RuleBasedStateMachine):
    """Does the same to tokens and to their model, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.added: list[tuple[Added, object]] = []

    def held(self) -> list[Node]:
        return [node for node in self.nodes if node.token is not None]

    def pick(self, data: st.DataObject) -> tuple[Node, CancelationToken]:
        # Numbers are drawn rather than tokens: what hypothesis has printed, it keeps alive.
        held = self.held()
        node = held[data.draw(st.integers(0, len(held) - 1))]
        assert node.token is not None
        return node, node.token

    def join(self, token: CancelationToken, parents: list[Node]) -> None:
        node = Node(token, parents)
        self.nodes.append(node)
        for parent in dict.fromkeys(parents):
            parent.children.append(node)
        for parent in dict.fromkeys(parents):
            for cause in parent.causes:
                node.cancel(cause)

    @rule()
    def make(self) -> None:
        """Make a token that stands alone."""
        self.nodes.append(Node(CancelationToken(), []))

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def make_child(self, data: st.DataObject) -> None:
        """Make a child of one token."""
        parent, token = self.pick(data)
        self.join(token.child(), [parent])

    @precondition(lambda self: self.held())
    @rule(data=st.data(), number=st.integers(0, 4))
    def make_any_of(self, data: st.DataObject, number: int) -> None:
        """Join several tokens, perhaps one of them more than once."""
        picked = [self.pick(data) for _ in range(number)]
        self.join(CancelationToken.any_of(*(token for _, token in picked)), [node for node, _ in picked])

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def add_callback(self, data: st.DataObject) -> None:
        """Add a callback, which runs at once on a cancelled token."""
        node, token = self.pick(data)
        added = Added(node, [])
        self.added.append((added, token.add_callback(added.calls.append)))

    @precondition(lambda self: self.added)
    @rule(data=st.data())
    def remove_callback(self, data: st.DataObject) -> None:
        """Take a callback back, perhaps too late, perhaps again."""
        added, remove = self.added[data.draw(st.integers(0, len(self.added) - 1))]
        assert callable(remove)
        remove()
        added.removed = added.removed or added.node.cancelation is None

    @precondition(lambda self: self.held())
    @rule(data=st.data(), reason=REASONS)
    def cancel(self, data: st.DataObject, reason: CancelationReason) -> None:
        """Cancel a token, perhaps again."""
        node, token = self.pick(data)
        is_first = node.cancelation is None
        cancelation = Cancelation(reason)

        assert token.cancel_with(cancelation) is is_first
        assert not token.cancel_with(cancelation)

        node.cancel(cancelation)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Let a token go. It lives on if a child listens to it."""
        node, token = self.pick(data)
        node.token = None
        # A remover holds its token; without them, nothing of the test's does.
        self.added = [(added, remove) for added, remove in self.added if added.node is not node]
        del token  # links make no rings: no need for the garbage collector

    @invariant()
    def tokens_say_what_the_model_says(self) -> None:
        """Check the record of each token that is held."""
        for node in self.held():
            assert node.token is not None
            assert node.token.cancelation is node.cancelation
            assert node.token.is_cancelled is (node.cancelation is not None)
            assert list(map(id, node.token.causes)) == list(map(id, node.causes))

    @invariant()
    def callbacks_ran_once_or_not_at_all(self) -> None:
        """Check how often each callback ran, and with what."""
        for added, _ in self.added:
            ran = added.node.cancelation is not None and not added.removed
            assert added.calls == ([added.node.cancelation] if ran else [])

    @invariant()
    def nothing_else_is_on_the_tokens(self) -> None:
        """Count callbacks and links."""
        for node in self.held():
            assert node.token is not None
            waiting = sum(added.node is node and added.is_waiting for added, _ in self.added)
            assert node.token.statistics().callbacks == waiting + node.links


Tokens.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestTokens = Tokens.TestCase


@given(
    parents=st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=25),
    start=st.integers(0, 24),
)
def test_a_cancelation_reaches_all_descendants_and_no_one_else(parents: list[list[int]], start: int) -> None:
    """
    Whatever the shape of the graph, a token hears if and only if there is a way to it.
    """
    tokens: list[CancelationToken] = []
    reached: list[bool] = []
    start %= len(parents)
    for i, numbers in enumerate(parents):
        above = [number % i for number in numbers] if i else []
        tokens.append(CancelationToken.any_of(*(tokens[number] for number in above)))
        reached.append(i == start or any(reached[number] for number in above))
    calls: list[list[Cancelation]] = [[] for _ in tokens]
    for token, heard in zip(tokens, calls, strict=True):
        token.add_callback(heard.append)

    tokens[start].cancel()

    assert [token.is_cancelled for token in tokens] == reached
    assert [len(heard) for heard in calls] == [int(is_reached) for is_reached in reached]
    assert {id(token.cancelation) for token in tokens if token.is_cancelled} == {
        id(tokens[start].cancelation)
    }


@given(callbacks=st.lists(st.sampled_from(["fine", "broken", "removed"]), max_size=12))
def test_errors_neither_stop_nor_hide_each_other(callbacks: list[str]) -> None:
    """
    Of all callbacks that stay, each runs, and each error is raised.
    """
    token = CancelationToken()
    ran: list[int] = []

    def call(i: int, _: Cancelation) -> None:
        ran.append(i)
        if callbacks[i] == "broken":
            raise KeyError(i)

    for i, kind in enumerate(callbacks):
        remove = token.add_callback(partial(call, i))
        if kind == "removed":
            remove()

    errors: list[object] = []
    try:
        assert token.cancel()
    except Exception as error:
        errors = [error.args[0] for error in getattr(error, "exceptions", [error])]

    assert ran == [i for i, kind in enumerate(callbacks) if kind != "removed"]
    assert errors == [i for i, kind in enumerate(callbacks) if kind == "broken"]
