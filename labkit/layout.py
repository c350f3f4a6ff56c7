"""Place the boxes of a diagram in rows, so that every arrow points downwards."""

import graphlib
import itertools
from collections.abc import Sequence

Place = tuple[float, float]  # column and row, in units of a box with its margin; row 0 is on top


def layered(
    names: Sequence[str], arrows: Sequence[tuple[str, str]]
) -> tuple[dict[str, Place], list[list[Place]]]:
    """Return the place of each box, and for each arrow the places that it passes on its way.

    A box stands one row below the lowest of those that point to it, and in the middle below them
    where there is room. An arrow over several rows keeps a column of its own in between, so that it
    crosses no box. (The method of Sugiyama, Tagawa and Toda, 1981, without their last refinement.)

    Raises `ValueError` for arrows that run in a circle.
    """
    row = _rows(names, arrows)
    chains = [[a, *((a, b, r) for r in range(row[a] + 1, row[b])), b] for a, b in arrows]
    row |= {stop: stop[2] for chain in chains for stop in chain[1:-1]}
    above: dict = {node: [] for node in row}
    for chain in chains:
        for upper, lower in itertools.pairwise(chain):
            above[lower].append(upper)
    column: dict = {}
    for level in range(max(row.values(), default=-1) + 1):
        nodes = [node for node in row if row[node] == level]
        wish = {
            node: sum(column[u] for u in above[node]) / len(above[node]) if above[node] else i
            for i, node in enumerate(nodes)
        }
        column |= _spread(wish)
    places = {node: (column[node], float(row[node])) for node in row}
    routes = [[places[node] for node in chain] for chain in chains]
    return {name: places[name] for name in names}, routes


def _rows(names: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict:
    """Return the row of each box: the number of arrows on the longest way to it."""
    before = {name: [a for a, b in arrows if b == name] for name in names}
    depth: dict = {}
    for name in graphlib.TopologicalSorter(before).static_order():
        depth[name] = 1 + max((depth[a] for a in before[name]), default=-1)
    return {name: depth[name] for name in names}


def _spread(wish: dict) -> dict:
    """Return columns at least 1 apart, in the order of the wishes and around their mean."""
    nodes = sorted(wish, key=wish.get)
    columns: list[float] = []
    for node in nodes:
        columns.append(max(wish[node], columns[-1] + 1) if columns else wish[node])
    shift = (sum(columns) - sum(wish.values())) / max(len(columns), 1)
    return {node: column - shift for node, column in zip(nodes, columns, strict=True)}
