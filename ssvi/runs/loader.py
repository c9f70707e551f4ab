"""YAML as it looks: `yaml.SafeLoader` without what goes wrong in silence or with a traceback.

Imports YAML, so it is itself imported where a config is read.
"""

from __future__ import annotations

import re
import reprlib
from functools import cached_property
from typing import Any

import yaml

# Of one mapping, merges followed.
MOST_KEYS = 10_000
# Values of digits, and how many of these one may have; more nobody means.
NUMBERS, LONGEST_NUMBER = ("int", "float", "timestamp"), 400
# Tags of YAML for values that no config has, and that would be unlike all others to whoever reads them.
NOT_IN_CONFIGS = ("binary", "omap", "pairs", "set")
NOTHING = ("", "~", "null", "Null", "NULL")
# Numbers of YAML that nobody would read so: octal ones, and those in parts of sixty.
OCTAL, SIXTIES = re.compile(r"[-+]?0[0-7_]+"), re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class Loader(yaml.SafeLoader):
    """yaml.SafeLoader without what goes wrong in silence or with a traceback: a key given twice, numbers that are
    read otherwise than they look, values that are not what their tag says, merges of merges without end, and merges of
    several mappings that have a key in common: of which it counts depends on the library's version."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        kind = node.tag.rpartition(":")[2]
        try:
            if kind in NUMBERS and (len(node.value) > LONGEST_NUMBER or not node.value.isascii()):
                raise ValueError(node.value)
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # whatever the library comes upon where it expects a value of that kind
            problem = f"{reprlib.repr(node.value)} is no {kind}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def plain_null(self, node: yaml.ScalarNode) -> None:
        if self.construct_scalar(node) not in NOTHING:
            raise ValueError(node.value)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen, merged, asked = set(), set[str](), 0
        for key, value in node.value:
            if (key.tag, str(key.value)) in seen:
                problem = f"the key {key.value!r} is there twice"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            seen.add((key.tag, str(key.value)))
            if key.tag != "tag:yaml.org,2002:merge":
                asked += 1
                continue
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                asked += self._keys(part)
                merged |= self._own(part, merged)
        if asked > MOST_KEYS:
            problem = f"merges more than {MOST_KEYS} keys into one mapping"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        self._asked[id(node)] = asked
        self._names[id(node)] = merged | {name for tag, name in seen if tag != "tag:yaml.org,2002:merge"}
        return node

    def _own(self, node: yaml.Node, others: set[str]) -> set[str]:
        """The keys of a mapping that is merged, none of which the others that are merged there may have."""
        names = self._names.get(id(node), set())
        if twice := sorted(names & others):
            problem = f"two of the mappings that are merged have the key {twice[0]!r}"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        return names

    @cached_property
    def _names(self) -> dict[int, set[str]]:
        """The keys of each mapping, merges followed."""
        return {}

    @cached_property
    def _asked(self) -> dict[int, int]:
        """How many keys each mapping asks for, merges followed: versions of the library keep different ones."""
        return {}

    def _keys(self, node: yaml.Node) -> int:
        # none of what is no mapping, which is refused later, and of one merged into itself
        return self._asked.get(id(node), 0)

    def plain_int(self, node: yaml.ScalarNode) -> int:
        return self._as_it_looks(node, self.construct_yaml_int(node))

    def plain_float(self, node: yaml.ScalarNode) -> float:
        return self._as_it_looks(node, self.construct_yaml_float(node))

    def _as_it_looks(self, node: yaml.ScalarNode, value: Any) -> Any:
        text = node.value
        if OCTAL.fullmatch(text):
            zeros = text.replace("_", "").lstrip("-+").lstrip("0") or "0"
            instead = f"{'-' * text.startswith('-')}{zeros}"
        elif SIXTIES.fullmatch(text):
            instead = repr(value)
        else:
            return value
        problem = f"{text} would be read as {value!r}: write {instead}, or '{text}' in quotes where it is a word"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


for tag in NOT_IN_CONFIGS:
    Loader.add_constructor(f"tag:yaml.org,2002:{tag}", Loader.construct_undefined)
Loader.add_constructor("tag:yaml.org,2002:null", Loader.plain_null)
Loader.add_constructor("tag:yaml.org,2002:int", Loader.plain_int)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.plain_float)
