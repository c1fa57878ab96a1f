"""Parses corrected by gold graphs: only where a graph says so, and never to say less."""

from __future__ import annotations

import pytest

from mvptr_data.scene_graphs.gold_graphs import GoldGraph, read_facts
from mvptr_data.scene_graphs.graph_repairs import GraphRepairs
from tests.mvptr_data.scene_graphs.silver_notation import silver, written

WRONG = "wall/NN/ROOT>0 with/IN/prep>0 pictures/NNS/pobj>1 in/IN/prep>0 a/DT/det>5 frame/NN/pobj>3"
RIGHT = "wall/NN/ROOT>0 with/IN/prep>0 pictures/NNS/pobj>1 in/IN/prep>2 a/DT/det>5 frame/NN/pobj>3"


def repaired(text: str, graph: str, caption: str | None = None) -> str:
    """A parse corrected by the graph of its own caption, or of another."""
    parse = silver(text)
    gold = GoldGraph(image_id="1", region_id="1", caption=caption or parse.text(), facts=read_facts(graph))
    (after,) = GraphRepairs([gold]).repair_all([parse])
    return written(after)


def test_the_graph_decides_what_is_in_the_frame() -> None:
    assert repaired(WRONG, "( wall , with , pictures ) , ( pictures , in , frame )") == RIGHT
    assert repaired(RIGHT, "( wall , with , pictures ) , ( wall , in , frame )") == WRONG


def test_what_agrees_stays() -> None:
    assert repaired(RIGHT, "( wall , with , pictures ) , ( pictures , in , frame )") == RIGHT


def test_several_changes() -> None:
    wrong = "men/NNS/ROOT>0 in/IN/prep>0 shirts/NNS/pobj>1 with/IN/prep>0 dots/NNS/pobj>3 at/IN/prep>4 games/NNS/pobj>5"
    right = "men/NNS/ROOT>0 in/IN/prep>0 shirts/NNS/pobj>1 with/IN/prep>2 dots/NNS/pobj>3 at/IN/prep>0 games/NNS/pobj>5"
    graph = "( men , in , shirts ) , ( shirts , with , dots ) , ( men , at , games )"
    assert repaired(wrong, graph) == right


@pytest.mark.parametrize("graph", ["( wall , with , pictures )", "( wall , on , house )", "( frame )"])
def test_nothing_is_unsaid_to_please_a_graph(graph: str) -> None:
    assert repaired(WRONG, graph) == WRONG


def test_other_captions_stay() -> None:
    graph = "( wall , with , pictures ) , ( pictures , in , frame )"
    assert repaired(WRONG, graph, caption="a wall with pictures") == WRONG
    assert repaired(WRONG, graph, caption="Wall with pictures in a frame .") == RIGHT


def test_it_reads_as_the_caption_parser_does() -> None:
    with_period = WRONG.replace("wall/", "Wall/") + " ././punct>0"
    assert repaired(with_period, "( wall , with , pictures ) , ( pictures , in , frame )") == (
        RIGHT.replace("wall/", "Wall/") + " ././punct>0"
    )
