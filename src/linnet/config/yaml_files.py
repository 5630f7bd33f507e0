"""YAML as linnet reads it: safe, of bounded size, 3e-4 a number, no key twice."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from linnet.errors import UserError

MOST_YAML_BYTES = 2**20  # a whole resolved config has 4 kB
_MOST_CHARACTERS = 2 * MOST_YAML_BYTES  # once every alias stands for a copy, a value counting for one at least
_MOST_DIGITS = 30
_WRITTEN_AS_YAML = (".yaml", ".yml", ".json")
_SHELLS_PIPES = Path("/dev/fd")  # `<(command)` in a shell


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 3e-4 as a number and refuses a key given twice."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _MOST_DIGITS:
            raise yaml.MarkedYAMLError(problem="a number has far too many digits", problem_mark=node.start_mark)
        return super().construct_yaml_int(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem="a key is no plain value", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key}' is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.yaml_implicit_resolvers = {
    letter: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:float"]
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9_]+(?:[eE][-+]?[0-9]+)?"
        r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: if the file is missing, empty, far longer than any config, not UTF-8 or not a YAML mapping.
    """
    path = Path(path)
    text = _read(path)
    try:
        value = parse_yaml(text, str(path))
    except UserError as error:
        if path.suffix.lower() in _WRITTEN_AS_YAML:
            raise
        raise _no_config(path) from error
    if value is None:
        raise UserError(f"{path}: is empty: name at least what differs from the defaults, e.g. `model: smollm2-135m`")
    if path.suffix.lower() not in _WRITTEN_AS_YAML and not _has_names(value):
        raise _no_config(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: should be a mapping of sections (model, tokenizer, data, optim, train)")
    return value


def parse_yaml(text: str, where: str) -> Any:
    """The value of a piece of YAML; `where` names it in an error."""
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_unfolding(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise UserError(f"{where}: is not usable: its YAML is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"{where}{line}: is not valid YAML: {getattr(error, 'problem', None) or error}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _read(path: Path) -> str:
    if path.exists() and not (path.is_file() or path.is_dir() or path.parent == _SHELLS_PIPES):
        raise UserError(f"{path}: is no ordinary file: give a .yaml file")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_YAML_BYTES + 1)
        if len(data) > MOST_YAML_BYTES:
            raise UserError(f"{path}: is longer than {MOST_YAML_BYTES:,} bytes, which no config is: give a .yaml file")
        return data.decode("utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such config file") from error
    except IsADirectoryError as error:
        raise UserError(
            f"{path}: is a directory, not a config file: give a .yaml file; a run goes on with "
            f"`linnet train {path}/config.yaml --run_dir {path}`"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: give a YAML file") from error


def _has_names(value: object) -> bool:
    """Whether `value` maps names, which prose with a colon in it does not."""
    return isinstance(value, dict) and all(isinstance(key, str) and key.isidentifier() for key in value)


def _no_config(path: Path) -> UserError:
    return UserError(
        f"{path}: is no config: give a .yaml file; text to train on is named in one, or by --data.source {path}"
    )


def _refuse_unfolding(root: yaml.Node) -> None:
    """Raise YAMLError if what `root` comes to, each alias being a copy, is endless or far more than a config.

    A few aliases of aliases of aliases stand for billions of values, and would be so many once they are printed.
    """
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value)
        if id(node) in above:
            raise yaml.MarkedYAMLError(problem="an alias stands inside what it names", problem_mark=node.start_mark)
        if id(node) not in sizes:
            above.add(id(node))
            parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 + sum(map(size, parts))
            above.remove(id(node))
        if sizes[id(node)] > _MOST_CHARACTERS:
            raise yaml.MarkedYAMLError(
                problem="its aliases stand for far more than a config holds", problem_mark=node.start_mark
            )
        return sizes[id(node)]

    size(root)
