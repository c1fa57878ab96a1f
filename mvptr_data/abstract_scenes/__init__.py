"""A drawn world whose truth is known: boxes, tags, attributes, relations, captions and their grounded phrases."""

from mvptr_data.abstract_scenes.drawing import draw_scene
from mvptr_data.abstract_scenes.records import GroundedPhrase, Relation, Scene, SceneCaption, Thing
from mvptr_data.abstract_scenes.relations import RELATIONS
from mvptr_data.abstract_scenes.scenes import generate_scene
from mvptr_data.abstract_scenes.truth import read_truth, scene_key
from mvptr_data.abstract_scenes.vocabulary import BACKGROUNDS, COLORS, KINDS, SIZES
from mvptr_data.abstract_scenes.world import write_world

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "KINDS",
    "RELATIONS",
    "SIZES",
    "GroundedPhrase",
    "Relation",
    "Scene",
    "SceneCaption",
    "Thing",
    "draw_scene",
    "generate_scene",
    "read_truth",
    "scene_key",
    "write_world",
]
