"""Writes the volumes of a pod as the kubelet does: files from its spec, behind `..data`, which is swapped as one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ConfigMaps = Mapping[str, Mapping[str, str]]
"""By name, the data."""


class Volume:
    """One directory that a pod mounts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._numbers = itertools.count(1)

    def write(self, files: Mapping[str, str]) -> None:
        """Put these files in the place of those that are there: readers see the old ones or the new ones."""
        fresh = self.directory / f"..2026_01_01_{next(self._numbers)}"
        fresh.mkdir()
        for name, text in files.items():
            (fresh / name).write_text(text)
        link = self.directory / "..data_tmp"
        link.symlink_to(fresh.name)
        link.replace(self.directory / "..data")
        for path in self.directory.iterdir():
            if not path.name.startswith("..") and path.name not in files:
                path.unlink()
        for name in files:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")


def files_of(volume: Mapping[str, Any], pod: Mapping[str, Any], maps: ConfigMaps, token: str) -> dict[str, str]:
    """Give the files of one volume of a pod, of the kinds that a sidecar has."""
    if "downwardAPI" in volume:
        return {item["path"]: field(pod, item["fieldRef"]["fieldPath"]) for item in volume["downwardAPI"]["items"]}
    if "projected" in volume:
        [source] = volume["projected"]["sources"]
        return {source["serviceAccountToken"]["path"]: token}
    assert volume["configMap"]["name"] in maps or volume["configMap"]["optional"]
    return dict(maps.get(volume["configMap"]["name"], {}))


def field(pod: Mapping[str, Any], path: str) -> str:
    """Give what `fieldPath` names, as the downward API writes it: maps a line for each key, values in quotes."""
    metadata = pod["metadata"]
    keyed = re.fullmatch(r"metadata\.(annotations|labels)\['(.+)'\]", path)
    if keyed is not None:
        return str(metadata.get(keyed[1], {}).get(keyed[2], ""))
    value = metadata[path.removeprefix("metadata.")]
    if not isinstance(value, dict):
        return str(value)
    return "\n".join(f'{key}="{text}"' for key, text in sorted(value.items()))
