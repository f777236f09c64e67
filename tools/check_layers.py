#!/usr/bin/python3
"""Fails when a source file includes a header of a layer above its own.

Layers are the folders of src/, lowest first. Public headers stand below all of them: everybody may include
them, and they include nothing but each other and the standard's smallest headers. Usage: tools/check_layers.py [ROOT]
"""

import re
import sys
from pathlib import Path

LAYERS = ("base", "net", "proto", "proc", "app", "cli")
# What a public header may ask of every C compiler, and nothing that its user would have to install.
STANDARD = {"stdarg.h", "stdbool.h", "stddef.h", "stdint.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def includes(file):
    """Yields (line number, quote, header) of every #include."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


def layer_of(header, file, quote, source_root):
    """The layer that a header belongs to; None when it is not below src/."""
    beside = (file.parent / header).resolve()
    if quote == '"' and beside.is_file() and source_root in beside.parents:
        return beside.relative_to(source_root).parts[0]
    first = Path(header).parts[0]
    return first if first in LAYERS and (source_root / header).is_file() else None


def is_public(header):
    return header == "baton.h" or header.startswith("baton/")


def problems_of_source(file, source_root):
    layer = file.relative_to(source_root).parts[0]
    if layer not in LAYERS:
        yield 1, f"src/{layer} is not one of the layers {' < '.join(LAYERS)}"
        return
    for number, quote, header in includes(file):
        other = layer_of(header, file, quote, source_root)
        if other in LAYERS and LAYERS.index(other) > LAYERS.index(layer):
            yield number, f"{layer} is below {other} and must not include <{header}>"


def problems_of_public_header(file, root):
    for number, _, header in includes(file):
        if is_public(header):
            if not (root / "include" / header).is_file():
                yield number, f"<{header}> does not exist"
        elif header not in STANDARD:
            yield number, f"a public header must not include <{header}>: only public ones and {', '.join(sorted(STANDARD))}"


def check(root):
    """Returns "file:line: what" for everything that breaks the order."""
    source_root = root / "src"
    found = []
    for file in sorted(source_root.rglob("*.[ch]")):
        found += [(file, *problem) for problem in problems_of_source(file, source_root)]
    for file in sorted((root / "include").rglob("*.h")):
        found += [(file, *problem) for problem in problems_of_public_header(file, root)]
    return [f"{file.relative_to(root)}:{number}: {what}" for file, number, what in found]


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    if not (root / "src").is_dir():
        sys.exit(f"{root}: no src/ here")
    problems = check(root)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
