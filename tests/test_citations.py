"""What the code, the tests and the pages cite is in the repository: the page and the section of it, the test."""

import ast
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
READ = {".py", ".md", ".toml", ".sh", ".yaml", ".yml"}
_PAGE = r"(?:[\w.-]+/)*[\w-]+\.md"
_CITED = re.compile(
    rf"`({_PAGE})`((?:,? sections? \d+| step \d+)?)|(?<!`)\[[^\]\n]*\]\(({_PAGE})(#[\w-]+)?\)((?: sections? \d+)?)"
)
_ROOM = re.compile(r"`((?:worker|schemas|deploy|tests)/[\w/.-]+\.(?:py|md|toml))(?:::(\w+))?`")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


class Citation(NamedTuple):
    """One mention of a page."""

    where: str
    page: str
    section: str
    """A number; empty: the page as a whole."""
    anchor: str
    """Of a heading, as links have it; empty: none."""
    is_link: bool


def tracked() -> list[Path]:
    """The files of the repository that are read by people."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if Path(name).suffix in READ and (ROOT / name).is_file()]


def citations(text: str, where: str) -> list[Citation]:
    """Every page that a text names."""
    found = []
    for match in _CITED.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        said = match[2] or match[5] or ""
        section = re.search(r"sections? (\d+)", said)
        number = "" if section is None else section[1]
        # What a program writes may be written elsewhere: its links lead to pages by their name.
        is_link = match[3] is not None and not where.endswith(".py")
        found.append(Citation(f"{where}:{line}", match[1] or match[3], number, (match[4] or "")[1:], is_link))
    return found


def anchors(page: str) -> set[str]:
    """What links to headings of a page may say."""
    heads = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def dead_ends(citation: Citation, beside: Path, pages: dict[str, list[Path]]) -> str:
    """Why a citation leads nowhere; empty: it does not. `pages`: those that there are, by file name."""
    if citation.is_link:
        targets = [beside / citation.page] if (beside / citation.page).is_file() else []
    else:
        targets = [
            page
            for page in pages.get(Path(citation.page).name, [])
            if page.as_posix().endswith(citation.page.lstrip("./"))
        ]
    if not targets:
        return f"{citation.where}: there is no {citation.page}"
    texts = [target.read_text() for target in targets]
    if citation.section and not any(re.search(rf"^#+ {citation.section}\.", text, re.MULTILINE) for text in texts):
        return f"{citation.where}: {citation.page} has no section {citation.section}"
    if citation.anchor and not any(citation.anchor in anchors(text) for text in texts):
        return f"{citation.where}: {citation.page} has no heading {citation.anchor}"
    return ""


def test_every_citation_leads_somewhere() -> None:
    """Nobody is sent to a page, a section or a heading that is not there."""
    files = tracked()
    pages: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix == ".md":
            pages.setdefault(file.name, []).append(file)
    found = [
        said
        for file in files
        if file != Path(__file__)
        for citation in citations(file.read_text(), str(file.relative_to(ROOT)))
        if (said := dead_ends(citation, file.parent, pages))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("see `PAGE.md` section 2", ""),
        ("see `PAGE.md` section 3", "x.md:1: PAGE.md has no section 3"),
        ("see `OTHER.md`", "x.md:1: there is no OTHER.md"),
        ("\n[it](PAGE.md#2-second-part)", ""),
        ("\n[it](PAGE.md#third)", "x.md:2: PAGE.md has no heading third"),
        ("[it](PAGE.md) section 9", "x.md:1: PAGE.md has no section 9"),
        ("[it](folder/PAGE.md)", "x.md:1: there is no folder/PAGE.md"),
    ],
)
def test_dead_end_is_found(tmp_path: Path, text: str, said: str) -> None:
    """Each way of citing a page that is wrong is told, and those that are right are not."""
    page = tmp_path / "PAGE.md"
    page.write_text("# Page\n\n## 1. First part\n\n## 2. Second part\n")
    (found,) = citations(text, "x.md")
    assert dead_ends(found, tmp_path, {"PAGE.md": [page]}) == said


def functions_in(file: Path) -> set[str]:
    """The names of the functions of a file; empty when there is no such file."""
    if not file.is_file():
        return set()
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def missing_tests(text: str, root: Path) -> list[str]:
    """The tests that a page cites, as far as they cannot be run."""
    return [f"{file}::{name}" for file, name in _TEST.findall(text) if name not in functions_in(root / file)]


def test_tests_that_pages_cite_are_there() -> None:
    """A page that says which test holds a promise says the truth."""
    pages = [file for file in tracked() if file.suffix == ".md"]
    assert len(_TEST.findall((ROOT / "deploy" / "GUARANTEE.md").read_text())) > 30
    found = [f"{page.name}: {name}" for page in pages for name in missing_tests(page.read_text(), ROOT)]
    assert not found, "\n".join(found)


def test_test_that_is_gone_is_found(tmp_path: Path) -> None:
    """A test that was renamed, and a file that was, are told."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("async def test_one(): ...")
    text = "`tests/test_a.py::test_one`, `tests/test_a.py::test_two`, `tests/test_b.py::test_one`"
    assert missing_tests(text, tmp_path) == ["tests/test_a.py::test_two", "tests/test_b.py::test_one"]


ROOMS = ("worker/core/DOMAIN.md", "worker/providers/ADDING.md")
"""The pages that say where a change begins."""


def names_in(file: Path) -> set[str]:
    """What a module defines: functions, classes, and values with a name."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def missing_rooms(text: str, root: Path) -> list[str]:
    """The files that a page names, and what it names in them, as far as they are not there. NAME is the reader's."""
    found = []
    for file, name in _ROOM.findall(text):
        if "NAME" in file:
            continue
        if not (root / file).is_file():
            found.append(file)
        elif name and name not in names_in(root / file):
            found.append(f"{file}::{name}")
    return found


@pytest.mark.parametrize("page", ROOMS)
def test_rooms_are_there(page: str) -> None:
    """Who is sent to a file, and to something in it, finds both."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(_ROOM.findall(text)) > 15
    assert missing_rooms(text, ROOT) == []


def test_every_change_names_a_room() -> None:
    """Each row of the table has a file that it begins in, or a page that says more, and what tells whoever forgets."""
    page = (ROOT / "worker" / "core" / "DOMAIN.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.partition("## 8. ")[2].splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for change, begins, _, told in rows:
        assert _ROOM.search(begins), change
        assert told.strip(" |"), change


def test_room_that_is_gone_is_found(tmp_path: Path) -> None:
    """A file that was moved, and a name that was, are told."""
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "a.py").write_text("def one(): ...\nTWO = 2\nTHREE: int = 3\nclass Four: ...\n")
    text = " ".join(f"`worker/a.py::{name}`" for name in ("one", "TWO", "THREE", "Four", "five"))
    text += " `worker/b.py` `worker/NAME/b.py` `worker/a.py`"
    assert missing_rooms(text, tmp_path) == ["worker/a.py::five", "worker/b.py"]
