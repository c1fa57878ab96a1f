"""Values in YAML, read as people mean them.

Numbers are those of YAML 1.2: 1e-4 is a number, 010 is ten, and 1:30 is text, which PyYAML takes for a text, eight and ninety.
A key that is there twice is refused, and so is an alias: a few lines of them can stand for more than a memory holds.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

from mvptr_data.errors import InputError

_PREFIX = "tag:yaml.org,2002:"
_BASES = {"0o": 8, "0x": 16}


class _Loader(yaml.SafeLoader):
    #: PyYAML's, without what it takes for numbers and dates.
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        first: [(tag, form) for tag, form in known if tag.removeprefix(_PREFIX) not in ("int", "float", "timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                problem=f"*{event.anchor} is an alias: write out what it stands for", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} is there already, in line {lines[key.value]}",
                        problem_mark=key.start_mark,
                    )
                lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node).replace("_", "")
        return int(text, _BASES.get(text[:2], 10))


_Loader.add_implicit_resolver(
    f"{_PREFIX}int", re.compile(r"(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    f"{_PREFIX}float",
    re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
    list("-+.0123456789"),
)
_Loader.add_constructor(f"{_PREFIX}int", _Loader.construct_whole)


def yaml_value(text: str, where: str) -> Any:
    """What a text says that is `where`. Raises `InputError` where it is not YAML."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (
        Exception
    ) as error:  # beside its own, the library lets through what Python says of such a value as `!!bool foo`
        said = str(error) if isinstance(error, yaml.YAMLError | ValueError) else f"{type(error).__name__}: {error}"
        raise InputError(f"{where} is not YAML ({' '.join(said.split())})", "Mend the line it names.") from error
