"""Captions to scene graphs to phrases. See README.md for the way a caption takes."""

from mvptr_data.scene_graphs.graph import Phrase, SceneAttribute, SceneGraph, SceneObject, SceneRelation
from mvptr_data.scene_graphs.normalize import normalize_caption
from mvptr_data.scene_graphs.parser import CaptionParser, load_parser

__all__ = [
    "CaptionParser",
    "Phrase",
    "SceneAttribute",
    "SceneGraph",
    "SceneObject",
    "SceneRelation",
    "load_parser",
    "normalize_caption",
]
