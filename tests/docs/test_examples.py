"""What the README and docs show is done, and their links lead somewhere.

A python block that defines tests is run by pytest, any other as a script. By convention:
``# name.py`` as a block's first line makes it a file beside the other named ones of its section, and only
those with tests are run; ``<!-- fails -->`` before a block says that its test fails; a block after
``<!-- output -->`` shows what the block before it wrote, with ``...`` for what is left out.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from netwarren import cli
from netwarren.sandbox.entry import MARKER
from tests.docs.markdown import DOCUMENTS, ROOT, Block, Document, anchor, read

SECONDS = 100

DOCS = pytest.mark.parametrize(
    "document", [read(path) for path in DOCUMENTS], ids=lambda document: document.path.name
)


def blocks(info: str) -> list[Block]:
    return [block for path in DOCUMENTS for block in read(path).blocks if block.info == info]


def is_script(block: Block) -> bool:
    return not block.has_tests and not block.file_name


SCRIPTS = [block for block in blocks("python") if is_script(block)]
FAILING = [block for block in blocks("python") if block.comment == "fails"]
WITH_TESTS = [path for path in DOCUMENTS if any(block.has_tests for block in read(path).blocks)]


def environment() -> Mapping[str, str]:
    """As a shell of the user's has it: outside any sandbox, and without what this session was told."""
    told = ("PYTEST_", "COV_", "COVERAGE_")
    return {
        name: value
        for name, value in os.environ.items()
        if name != MARKER and not name.startswith(told) and not name.lower().endswith("_proxy")
    }


def run(*words: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout


def run_pytest(folder: Path) -> tuple[int, str]:
    ini = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    (folder / "pytest.ini").write_text(ini)
    return run("-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-ra", ".", cwd=folder)


def write(written: list[Block], folder: Path) -> None:
    """Write blocks to files: named ones beside those of their section, others to folders of their own."""
    for block in written:
        name = block.file_name or f"test_line_{block.line}.py"
        group = f"section-{anchor(block.section)}" if block.file_name else f"line-{block.line}"
        path = folder / group / name
        assert not path.exists(), f"{block.where}: its section has a {name} already"
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text)


def check_output(document: Document, block: Block, output: str) -> None:
    """What the docs say a block writes is in ``output``, line by line, in order."""
    shown = document.following(block)
    if shown is None or shown.comment != "output":
        return
    position = 0
    for line in shown.text.splitlines():
        if line.strip() in ("", "..."):
            continue
        pattern = r"[^\n]*".join(map(re.escape, line.split("...")))
        match = re.compile(rf"^{pattern}$", re.MULTILINE).search(output, position)
        assert match, f"{shown.where}: {line!r} is not there, or not in this place, in:\n{output}"
        position = match.end()


# --- the blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WITH_TESTS, ids=lambda path: path.name)
def test_tests_shown_in_a_document_pass(path: Path, tmp_path: Path) -> None:
    shown = [block for block in read(path).blocks if block.info == "python" and not is_script(block)]
    write([block for block in shown if block not in FAILING], tmp_path)
    status, output = run_pytest(tmp_path)
    assert status == 0, output
    assert "skipped" not in output
    assert "deselected" not in output


@pytest.mark.parametrize("block", FAILING, ids=lambda block: block.where)
def test_test_shown_to_fail_fails_and_reports_as_shown(block: Block, tmp_path: Path) -> None:
    document = read(block.document)
    beside = [each for each in document.blocks if each.section == block.section and each.file_name]
    write([each for each in beside if each is block or not each.has_tests], tmp_path)
    status, output = run_pytest(tmp_path)
    assert status == 1, output
    check_output(document, block, output)


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.where)
def test_script_shown_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(block.text)
    status, output = run("script.py", cwd=tmp_path)
    assert status == 0, output
    check_output(read(block.document), block, output)


@DOCS
def test_no_block_of_python_goes_untried(document: Document) -> None:
    infos = {block.info for block in document.blocks}
    assert infos <= {"python", "console", "text", "ini", "toml", "yaml", "json"}
    outputs = [block for block in document.blocks if block.comment == "output"]
    for before, after in zip(document.blocks, document.blocks[1:], strict=False):
        if after in outputs:
            assert before in SCRIPTS or before in FAILING, f"{after.where}: nothing writes this"


# --- commands and settings ----------------------------------------------------------------------------


def our_commands(block: Block) -> list[list[str]]:
    """What follows ``netwarren`` in the commands of a block."""
    if block.info == "yaml":
        lines = re.findall(r"(?:^|run: |- )netwarren (.*)", block.text)
        commands = [["netwarren", *line.split()] for line in lines]
    else:
        commands = block.commands
    ours = []
    for words in commands:
        if "netwarren" in words[: words.index("--") if "--" in words else None]:
            position = words.index("netwarren")
            if position == 0 or words[position - 1] == "-m":
                ours.append(words[position + 1 :])
    return ours


COMMANDS = [
    pytest.param(words, id=f"{block.where}-{words[0]}")
    for block in (*blocks("console"), *blocks("yaml"))
    for words in our_commands(block)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_command_shown_is_understood(words: list[str]) -> None:
    cut = words.index("--") if "--" in words else len(words)
    cli._parser().parse_args(words[:cut])


def test_make_targets_shown_are_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks("console"):
        for words in block.commands:
            if words[0] == "make":
                assert {word for word in words[1:] if "=" not in word} <= targets, block.where


def test_settings_shown_are_there() -> None:
    known = set(re.findall(r"netwarren_\w+", (ROOT / "src/netwarren/pytest_plugin.py").read_text()))
    for block in (*blocks("ini"), *blocks("toml")):
        assert set(re.findall(r"^netwarren_\w+", block.text, re.MULTILINE)) <= known, block.where


def test_readme_sets_up_by_two_commands() -> None:
    (block,) = [block for block in read(ROOT / "README.md").blocks if block.section == "Set up"]
    assert block.commands == [["make", "demo"], ["make", "test"]]


# --- links ------------------------------------------------------------------------------------------------


@DOCS
def test_links_lead_somewhere(document: Document) -> None:
    for line, link in document.links:
        if re.match(r"[a-z]+:", link):
            continue
        target, _, fragment = link.partition("#")
        path = (document.path.parent / target).resolve() if target else document.path
        where = f"{document.path.name}:{line}: {link}"
        assert path.exists(), where
        if fragment:
            assert fragment in map(anchor, read(path).headings), where


def test_index_leads_to_every_document() -> None:
    index = read(ROOT / "docs" / "index.md")
    assert {path.name for path in DOCUMENTS} <= {Path(link).name for _line, link in index.links} | {
        "index.md"
    }
