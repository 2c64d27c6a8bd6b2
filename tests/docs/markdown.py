"""The README and docs as data: their code blocks, headings and links.

Rules: pure reading of text; a block knows what was said about it (the HTML comment before it) and what
follows it; line numbers are those of the file, so that a failure points at its place.
Does not belong here: running anything.
"""

import functools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^( *)```(.*)$")
_HEADING = re.compile(r"^(#+) +(.+?) *$")
_COMMENT = re.compile(r"^<!-- *(.*?) *-->$")
_NAME = re.compile(r"^# (\w+\.py)$")
_LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`]*`")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ``info`` is what stands behind its fence, ``comment`` what is said right before it."""

    document: Path
    line: int
    section: str
    info: str
    comment: str
    text: str

    @property
    def where(self) -> str:
        """For messages: ``docs/tutorial.md:12``."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def file_name(self) -> str:
        """What its first line calls it (``# server.py``), or nothing."""
        match = _NAME.match(self.text.partition("\n")[0])
        return match.group(1) if match else ""

    @property
    def has_tests(self) -> bool:
        return re.search(r"^\s*(async )?def test_", self.text, re.MULTILINE) is not None

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a console block, as words."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


@dataclass(frozen=True, slots=True)
class Document:
    path: Path
    blocks: tuple[Block, ...]
    headings: tuple[str, ...]
    links: tuple[tuple[int, str], ...]

    def section(self, heading: str) -> str:
        """The text of a section, up to the next heading of its level or above."""
        lines = self.path.read_text().splitlines()
        level, text = 0, []
        for line in lines:
            match = _HEADING.match(line)
            if match and level and len(match.group(1)) <= level:
                break
            if match and match.group(2) == heading:
                level = len(match.group(1))
            if level:
                text.append(line)
        assert text, f"{self.path.name} has no section {heading!r}"
        return "\n".join(text)

    def following(self, block: Block) -> Block | None:
        """The block after ``block``, if there is one."""
        position = self.blocks.index(block) + 1
        return self.blocks[position] if position < len(self.blocks) else None


@functools.cache
def read(path: Path) -> Document:
    """The document at ``path``."""
    blocks: list[Block] = []
    headings: list[str] = []
    links: list[tuple[int, str]] = []
    comment = indent = info = ""
    start = 0
    inside: list[str] | None = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if inside is not None:
            if line.strip() == "```":
                section = headings[-1] if headings else ""
                blocks.append(Block(path, start, section, info, comment, "\n".join(inside) + "\n"))
                inside, comment = None, ""
            else:
                inside.append(line.removeprefix(indent))
        elif match := _FENCE.match(line):
            indent, info = match.group(1), match.group(2).strip()
            inside, start = [], number
        elif match := _HEADING.match(line):
            headings.append(match.group(2))
        elif match := _COMMENT.match(line):
            comment = match.group(1)
        else:
            comment = comment if not line.strip() else ""
            links += [(number, target) for target in _LINK.findall(_CODE.sub("", line))]
    assert inside is None, f"{path.name}:{start}: a block that does not end"
    return Document(path, tuple(blocks), tuple(headings), tuple(links))


def anchor(heading: str) -> str:
    """What a link to a heading says after ``#``."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
