from __future__ import annotations

import numpy as np

from mvptr_data.abstract_scenes import GroundedPhrase, generate_scene
from pipelines.demo.truth import gold_boxes


def test_each_phrase_with_an_attribute_has_the_boxes_of_what_it_speaks_of() -> None:
    scenes = {str(index): generate_scene(3, index) for index in range(40)}
    gold = gold_boxes(scenes)
    asked: list[GroundedPhrase] = []
    for key, scene in scenes.items():
        for caption in scene.captions:
            found = gold[key, caption.text]
            meant = [phrase for phrase in caption.phrases if len(phrase.words) == 2 and phrase.things]
            assert found.keys() == {phrase.words for phrase in meant}
            for phrase in meant:
                boxes = [scene.things[thing].box for thing in phrase.things]
                assert np.array_equal(found[phrase.words], np.array(boxes, dtype=np.float32))
            asked += meant
    # Of one thing and of several, and none of a relation or the background, though captions have those.
    assert {len(phrase.things) > 1 for phrase in asked} == {True, False}
    every = [phrase for scene in scenes.values() for caption in scene.captions for phrase in caption.phrases]
    assert any(len(phrase.words) == 3 for phrase in every) and len(asked) < len(every)
