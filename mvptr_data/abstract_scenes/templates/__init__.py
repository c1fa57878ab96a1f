"""Every form a caption can take, by name, and how often each is tried."""

from mvptr_data.abstract_scenes.templates.describing import DESCRIBING
from mvptr_data.abstract_scenes.templates.form import Draft, Template
from mvptr_data.abstract_scenes.templates.holding import HOLDING
from mvptr_data.abstract_scenes.templates.relating import RELATING

#: Forms that relate things to each other: name -> (template, how often it is tried relative to the others).
RELATIONAL: dict[str, tuple[Template, float]] = {**RELATING, **HOLDING}

#: All forms.
TEMPLATES: dict[str, tuple[Template, float]] = {**RELATIONAL, **DESCRIBING}

__all__ = ["RELATIONAL", "TEMPLATES", "Draft", "Template"]
