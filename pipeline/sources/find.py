"""Expands files, folders and globs into the files and folders that sources read, and names them."""

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pagepairs.stores import absolute, exists, is_folder, is_remote, store_of
from pipeline.sources.folder import IMAGE_SUFFIXES, is_image_name

_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One file or folder of the input."""

    source: str  # relative to root, with / between folders; "." is the root itself
    path: str
    root: str
    kind: str


def find_files(inputs: tuple[str, ...], suffixes: Mapping[str, str]) -> list[Found]:
    """Returns everything that the inputs name, each file and folder once.

    A file that two inputs name belongs to the input whose root lies highest. Images below a folder that holds a table belong to the
    table, not to a folder of images.

    Args:
      inputs: names of files and folders, and globs.
      suffixes: suffix of a file name -> kind of source.

    Raises:
      ValueError: if an input does not exist, matches nothing or is of a kind that no source reads.
    """
    found: dict[str, Found] = {}
    for name in inputs:
        for one in _expand(name, suffixes):
            other = found.get(one.path)
            if other is None or (len(one.root), one.root) < (len(other.root), other.root):
                found[one.path] = one
    return _name_apart(sorted((one for one in found.values() if not _is_beside_tar(one, found)), key=lambda one: one.path))


def _is_beside_tar(one: Found, found: Mapping[str, Found]) -> bool:
    """Tells whether a table only repeats what the samples of a tar say, as img2dataset writes it beside each tar."""
    stem = one.path.removesuffix(".parquet")
    return stem != one.path and f"{stem}.tar" in found


def _expand(name: str, suffixes: Mapping[str, str]) -> list[Found]:
    if exists(name):
        path = _real(name)
        found = [_found(path, os.path.dirname(path), _kind_or_error(name, suffixes))]
    elif is_folder(name):
        root = _real_folder(name)
        found = list(_walk(root, root, suffixes))
    elif _WILDCARDS & set(name):
        found = _expand_glob(name, suffixes)
    else:
        raise ValueError(f"--input {name}: there is no such file or folder")
    if not found:
        raise ValueError(f"--input {name}: nothing there that a source reads; {_kinds(suffixes)}")
    return found


def _expand_glob(pattern: str, suffixes: Mapping[str, str]) -> list[Found]:
    parts = pattern.split("/")
    fixed = parts[: next(index for index, part in enumerate(parts) if _WILDCARDS & set(part))]
    root = _real_folder("/".join(fixed) or ("/" if pattern.startswith("/") else "."))
    found: list[Found] = []
    for name in _glob_objects(pattern, root) if is_remote(pattern) else sorted(glob.glob(pattern, recursive=True)):
        path = _real(name)
        if is_folder(path):
            found += _walk(_real_folder(path), root, suffixes)
        elif (kind := _kind(path, suffixes)) is not None:
            found.append(_found(path, root, kind))
    return found


def _glob_objects(pattern: str, root: str) -> list[str]:
    """Returns the objects that match; `*` stays within a folder, `**` does not, and what matches a folder brings all below it."""
    parts = (".*" if part == "**" else fnmatch.translate(part)[4:-3].replace(".*", "[^/]*") for part in pattern.rstrip("/").split("/"))
    match = re.compile("/".join(parts).replace(".*/", "(?:.*/)?") + "(?:/.*)?").fullmatch
    return [path for path in store_of(root).files(root) if match(path)]


def _real(path: str) -> str:
    """The path of a file, behind symbolic links of its folder."""
    return path if is_remote(path) else os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))


def _real_folder(path: str) -> str:
    return absolute(path) if is_remote(path) else os.path.realpath(path)


def _walk(top: str, root: str, suffixes: Mapping[str, str]) -> Iterator[Found]:
    tables: list[str] = []  # folders whose images belong to a table
    folders: dict[str, list[str]] = {}
    for path in store_of(top).files(top):
        folders.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
    for folder, names in sorted(folders.items()):
        kinds = {name: kind for name in sorted(names) if (kind := _kind(name, suffixes)) is not None}
        if "table" in kinds.values():
            tables.append(os.path.join(folder, ""))
        for name, kind in kinds.items():
            yield _found(os.path.join(folder, name), root, kind)
        if any(is_image_name(name) for name in names) and not os.path.join(folder, "").startswith(tuple(tables)):
            yield _found(folder, root, "folder")


def _found(path: str, root: str, kind: str) -> Found:
    return Found(source=os.path.relpath(path, root).replace(os.sep, "/"), path=path, root=root, kind=kind)


def _kind(name: str, suffixes: Mapping[str, str]) -> str | None:
    return next((kind for suffix, kind in suffixes.items() if name.lower().endswith(suffix)), None)


def _kind_or_error(name: str, suffixes: Mapping[str, str]) -> str:
    kind = _kind(name, suffixes)
    if kind is None:
        hint = "; give the folder that the image stands in" if name.lower().endswith(IMAGE_SUFFIXES) else ""
        raise ValueError(f"--input {name}: no source reads this kind of file{hint}; {_kinds(suffixes)}")
    return kind


def _kinds(suffixes: Mapping[str, str]) -> str:
    return f"sources read {', '.join('*' + suffix for suffix in suffixes)} and folders of images"


def _name_apart(found: list[Found]) -> list[Found]:
    """Puts the last folder names of the roots before the sources, where sources of different roots could meet.

    A table or folder of images names further files below its root, so with several roots one of these is enough.
    """
    roots = sorted({one.root for one in found})
    meet = len({one.source for one in found}) < len(found) or any(one.kind in ("table", "folder") for one in found)
    if len(roots) < 2 or not meet:
        return found
    depth = next(depth for depth in range(1, 1 + max(root.count("/") for root in roots)) if _are_apart([_tail(r, depth) for r in roots]))
    return [replace(one, source=_join(_tail(one.root, depth), one.source)) for one in found]


def _tail(root: str, depth: int) -> str:
    return "/".join(root.strip("/").split("/")[-depth:])


def _are_apart(prefixes: list[str]) -> bool:
    ordered = sorted(f"{prefix}/" for prefix in prefixes)
    return not any(after.startswith(before) for before, after in itertools.pairwise(ordered))


def _join(prefix: str, source: str) -> str:
    return prefix if source == "." else f"{prefix}/{source}"
