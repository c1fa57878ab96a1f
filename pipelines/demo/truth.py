"""What a drawn world knows of its captions' phrases, in the form that grounding is measured in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mvptr_data.abstract_scenes import Scene
from mvptr_model.evaluation.grounding import GoldBoxes


def gold_boxes(truth: Mapping[str, Scene]) -> GoldBoxes:
    """The boxes of the things that each (object, attribute) phrase of each caption speaks of.

    Relations speak of two things at once, so they are no question of where; phrases about the background have no box.
    """
    return {
        (key, caption.text): {
            phrase.words: np.array([scene.things[thing].box for thing in phrase.things], dtype=np.float32)
            for phrase in caption.phrases
            if len(phrase.words) == 2 and phrase.things
        }
        for key, scene in truth.items()
        for caption in scene.captions
    }
