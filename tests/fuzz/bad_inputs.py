"""A seeded generator of bad inputs: each is one thing wrong with an otherwise correct call of a command."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from world import World

Make = Callable[[random.Random, World, Path], "Call"]
"""From randomness, good inputs and an empty working folder to a bad call."""


@dataclass(frozen=True)
class Call:
    """A command line that must be refused."""

    what: str
    """What is wrong, e.g. `forget.jsonl: cut in the last row`."""
    arguments: list[str]


@dataclass(frozen=True)
class Case:
    """One bad input of the sequence that a seed stands for."""

    number: int
    family: str
    seed: str
    make: Make

    def call(self, world: World, folder: Path) -> Call:
        """Write the case's files to its working folder and give its command line."""
        return self.make(random.Random(self.seed), world, folder)


FAMILIES: dict[str, Make] = {}
"""Name -> generator: every function in a file `bad_*.py` of this folder that is marked with `family`."""


def family(make: Make) -> Make:
    """Add a generator under its function's name."""
    FAMILIES[make.__name__] = make
    return make


def cases(seed: int, count: int) -> Iterator[Case]:
    """The first `count` cases of a seed, the families in turn."""
    for path in sorted(Path(__file__).parent.glob("bad_*.py")):
        import_module(path.stem)
    names = sorted(FAMILIES)
    for number in range(count):
        name = names[number % len(names)]
        yield Case(number, name, f"{seed}/{number}", FAMILIES[name])


def damaged(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """A way in which a file that must hold a whole document can be broken, and the broken content."""
    cut = rng.randrange(1, max(2, len(content) - 2))
    ways = {
        "empty": b"",
        "cut": content[:cut],
        "zeros": bytes(len(content)),
        "noise": rng.randbytes(200),
        "zeros at its end": content[:cut] + bytes(50),
        "not UTF-8": content[:cut] + b"\xff\xfe\xfd" + content[cut:],
    }
    way = rng.choice(sorted(ways))
    return way, ways[way]
