"""YAML files that people write, read as frozen models: what is wrong is named with its key and the reason."""

import hashlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from expectations.errors import ContractBroken

Document = TypeVar("Document", bound=BaseModel)


class _NoRepeats(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error and not a silent replacement."""


def _build_mapping(loader: _NoRepeats, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_NoRepeats.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _build_mapping)


def read_document(path: Path, kind: str, model: type[Document]) -> tuple[Document, str]:
    """Reads and checks a file of this kind; returns it with the sha256 of the file.

    Raises ContractBroken, which names the file, each wrong key and why it is wrong.
    """
    content = path.read_bytes()
    try:
        raw = yaml.load(content.decode("utf-8"), Loader=_NoRepeats)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ContractBroken(f"{kind} {path.name} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ContractBroken(f"{kind} {path.name}: expected keys and values at the top")
    try:
        document = model.model_validate(raw)
    except ValidationError as error:
        lines = [
            f"  {_name_place(raw, e['loc'], kind)}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        ]
        raise ContractBroken("\n".join([f"{kind} {path.name} is not valid:", *lines])) from None
    return document, hashlib.sha256(content).hexdigest()


def _name_place(raw: Any, location: tuple[int | str, ...], kind: str) -> str:
    """`items[3] (dpq040).levels` says more than `items.3.levels`."""
    words: list[str] = []
    for step in location:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            raw = None
        if isinstance(step, int) and words:
            label = raw.get("key") or raw.get("name") if isinstance(raw, dict) else None
            words[-1] += f"[{step}]" + (f" ({label})" if label else "")
        else:
            words.append(str(step))
    return ".".join(words) or kind
