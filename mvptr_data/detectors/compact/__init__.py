"""The bundled detector: a small Faster R-CNN with attributes for the drawn world of `mvptr_data.abstract_scenes`."""
