"""What executions are called in a run: `plan/search[key]`, where a slash parts the levels."""

from __future__ import annotations

__all__ = ["label_of", "readable"]


def label_of(spawner: str, actor: str, key: str) -> str:
    """Return the label of what an execution has spawned; a key may hold anything, and is escaped."""
    return f"{spawner}/{actor}[{key.replace('%', '%25').replace('/', '%2F')}]"


def readable(label: str) -> str:
    """Return a label as a person is to read it, with the keys in it as they were given."""
    return "/".join(_with_its_key(name) for name in label.split("/"))


def _with_its_key(name: str) -> str:
    actor, bracket, key = name.partition("[")
    return f"{actor}{bracket}{key.replace('%2F', '/').replace('%25', '%')}"
