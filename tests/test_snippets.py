"""The Python blocks of the README and the pages run: those of a page in order, as one program.

A block after a comment ``<!-- no-run: reason -->`` is only compiled.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from tests.conftest import RunPrivately

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(
    r"(?P<no_run><!-- *no-run: *\S[^>]*-->\s*\n)?"
    r"^(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)

PROGRAM = """\
import tempfile

tempfile.tempdir = {scratch!r}
scope = {{"__name__": "__main__"}}
for source in {sources!r}:
    exec(compile(source, {page!r}, "exec"), scope)
"""


class Block(NamedTuple):
    """A block of code: empty lines before it make its line numbers those of the page."""

    source: str
    runs: bool


def blocks(page: Path) -> list[Block]:
    """Return the Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            source="\n" * text.count("\n", 0, match.start("code")) + textwrap.dedent(match["code"]),
            runs=match["no_run"] is None,
        )
        for match in BLOCK.finditer(text)
    ]


WITH_BLOCKS = [page for page in PAGES if page.exists() and blocks(page)]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.stem)
def test_blocks_compile(page: Path) -> None:
    """Every block is Python."""
    for block in blocks(page):
        compile(block.source, page, "exec", dont_inherit=True)


@pytest.mark.root
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.stem)
def test_blocks_run(page: Path, tmp_path: Path, run_privately: RunPrivately) -> None:
    """The blocks of a page, one after the other, do what the page says and leave nothing behind."""
    program = tmp_path / "blocks.py"
    sources = [block.source for block in blocks(page) if block.runs]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    text = PROGRAM.format(sources=sources, page=str(page), scratch=str(scratch))
    program.write_text(text, encoding="utf-8")
    result = run_privately([sys.executable, program])
    assert result.returncode == 0, result.stdout + result.stderr
    assert list(scratch.iterdir()) == []
