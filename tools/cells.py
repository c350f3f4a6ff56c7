"""Read the percent source of a lab: its cells, its fingerprints, and the definitions in it."""

import ast
import hashlib
import json
import linecache
import re

from labkit.paths import ROOT
from labkit.results import PROFILES

import jupytext
import nbformat
from IPython.core.inputtransformer2 import TransformerManager

SOURCES = ROOT / "labs" / "source"
LABS = ROOT / "labs"
PREPROCESSING = ROOT / "preprocessing.py"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = "...  # YOUR CODE HERE"


def labs(*wanted: str) -> list[str]:
    """Return the names of the labs, or of those whose name begins with one of `wanted`.

    Raises `ValueError` for a name that no lab begins with.
    """
    names = sorted(file.stem for file in SOURCES.glob("[0-9]*.py"))
    for prefix in wanted:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"no lab {prefix!r}; the labs are {', '.join(names)}")
    return [name for name in names if not wanted or name.startswith(wanted)]


def read(lab: str) -> nbformat.NotebookNode:
    """Return the source of a lab as a notebook, solutions and their markers included."""
    notebook = jupytext.read(SOURCES / f"{lab}.py", fmt="py:percent")
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        # An id from the cell's first line survives insertions elsewhere and edits below.
        first = f"{cell.cell_type}\n{cell.source.splitlines()[0] if cell.source else ''}"
        seen[first] = seen.get(first, 0) + 1
        cell.id = hashlib.sha256(f"{first}\n{seen[first]}".encode()).hexdigest()[:12]
    return notebook


IMPORTS = (ast.Import, ast.ImportFrom)
NO_CODE = ("kind", "type_ignores")  # fields that differ between Pythons
FORMATTER = re.compile(r"  # fmt: (skip|off|on)$", re.MULTILINE)  # says nothing to a reader


def student(source: str) -> str:
    """Return the code of a cell with each marked solution replaced by a stub that runs."""
    source = FORMATTER.sub("", source)
    block = re.compile(rf"^([ \t]*){BEGIN}\n.*?^[ \t]*{END}$", re.MULTILINE | re.DOTALL)
    return block.sub(lambda found: found.group(1) + STUB, source)


def solution(source: str) -> str:
    """Return the code of a cell with its solution, without the markers."""
    source = FORMATTER.sub("", source)
    return re.sub(rf"^[ \t]*({BEGIN}|{END})\n?", "", source, flags=re.MULTILINE).rstrip("\n")


def load(lab: str, *tags: str, namespace: dict | None = None) -> dict:
    """Run the cells of a lab that carry one of `tags` and return what they define.

    Studies and tests take models from here, so that no model is written twice. Without tags:
    `setup` and `definition`.
    """
    namespace = {"__name__": f"labs_{lab}"} if namespace is None else namespace
    for cell in read(lab).cells:
        if cell.cell_type == "code" and set(tags or ("setup", "definition")) & tags_of(cell):
            text, name = python(solution(cell.source)), f"<{lab}:{cell.id}>"
            linecache.cache[name] = (len(text), None, text.splitlines(True), name)  # for AutoGraph
            exec(compile(text, name, "exec"), namespace)
    return namespace


def tags_of(cell: nbformat.NotebookNode) -> set[str]:
    """Return the tags of a cell, its nbgrader id among them."""
    return set(cell.metadata.get("tags", [])) | {cell.metadata.get("nbgrader", {}).get("grade_id")}


def python(source: str) -> str:
    """Return the code of a cell with IPython's magics turned into Python."""
    return TransformerManager().transform_cell(source)


# --- fingerprints: what must change the outputs of a profile --------------------------------------


def code_sha256(notebook: nbformat.NotebookNode, profile: str) -> str:
    """Return a hash of what the code cells do in a profile.

    Comments and layout do not count, nor do the values that `run.scale` has for other profiles.
    """
    codes = [_normal(_parse(python(student(cell.source)), profile)) for cell in code(notebook)]
    return _sha256(json.dumps(codes))


def preprocessing_sha256(notebook: nbformat.NotebookNode, profile: str) -> str:
    """Return a hash of all of `preprocessing.py` that the code cells use, directly or not."""
    trees = (_parse(python(student(cell.source)), profile) for cell in code(notebook))
    return _sha256(json.dumps(_used_parts(_preprocessing(), set().union(*map(_names, trees)))))


def study_sha256(lab: str, script: str, settings: dict) -> str:
    """Return a hash of what decides one row of a study: `measure`, and all that it uses.

    That is code of the script itself, of the lab's set-up and definition cells as they are in
    `standard`, and of `preprocessing.py`. `CASES` does not count, so that rows can be added. A
    definition is used when its name stands in used code, as a name or as a text, or is one of the
    row's settings.
    """
    taught = [c for c in code(read(lab)) if {"setup", "definition"} & tags_of(c)]
    statements = [n for c in taught for n in _statements(python(solution(c.source)))]
    loose = [_normal(node) for node in statements if not _defined(node)]  # may do anything
    own = _used_parts(_parts(_statements(script)), {"LAB", "measure"})
    lessons = _used_parts(_parts(statements), _words([own, loose, list(settings.values())]))
    prepared = _used_parts(_preprocessing(), _words([own, loose, lessons]))
    return _sha256(json.dumps([own, loose, lessons, prepared]))


class _At(ast.NodeTransformer):
    """Put the value of one profile in the place of each call of `run.scale`."""

    def __init__(self, profile: str):
        self.profile = profile

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        values = {keyword.arg: keyword.value for keyword in node.keywords}
        is_scale = isinstance(node.func, ast.Attribute) and node.func.attr == "scale"
        return values[self.profile] if is_scale and set(values) == set(PROFILES) else node


def _parse(source: str, profile: str) -> ast.Module:
    """Return the syntax tree of a source as it is in a profile."""
    return _At(profile).visit(ast.parse(source))


def _preprocessing() -> dict[str, ast.stmt]:
    """Return what `preprocessing.py` defines; its imports say nothing that its code does not."""
    body = ast.parse(PREPROCESSING.read_text(encoding="utf-8")).body
    return _parts([node for node in body if not isinstance(node, IMPORTS)])


def _used_parts(parts: dict[str, ast.stmt], used: set[str]) -> dict[str, object]:
    """Return the parts of a module that the names `used` lead to, directly or not, without docs."""
    todo, found = used & set(parts), set()
    while todo:
        found |= todo
        todo = set().union(*(_names(parts[name]) for name in todo)) & set(parts) - found
    return {name: _normal(parts[name], False) for name in sorted(found)}


def _parts(statements: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Return each name that statements define, and the statement that does."""
    return {name: node for node in statements for name in _defined(node)}


def _statements(source: str) -> list[ast.stmt]:
    """Return the statements of a source as in `standard`, imports one name at a time."""
    found = []
    for node in _parse(source, "standard").body:
        if isinstance(node, IMPORTS):
            origin = {"module": node.module} if isinstance(node, ast.ImportFrom) else {}
            found += [type(node)(names=[alias], **origin) for alias in node.names]
        else:
            found.append(node)
    return found


def _words(parts: list) -> set[str]:
    """Return every word in parts of code, in texts as well: a definition may be named by a text."""
    return set(re.findall(r"\w+", repr(parts)))


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module defines."""
    if isinstance(node, IMPORTS):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [node.name] if hasattr(node, "name") else []


def _names(tree: ast.AST) -> set[str]:
    """Return every name and attribute in a tree."""
    nodes = list(ast.walk(tree))
    imported = {alias.name for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names}
    return (
        {node.id for node in nodes if isinstance(node, ast.Name)}
        | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        | imported
    )


def _normal(node: object, docs: bool = True) -> object:
    """Return a syntax tree as lists, the same on every Python; without docstrings if so wished."""
    if isinstance(node, list):
        return [_normal(part, docs) for part in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if not docs and isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
        fields["body"] = node.body[1:]
    kept = {k: v for k, v in fields.items() if v not in (None, []) and k not in NO_CODE}
    return [type(node).__name__, *([k, _normal(v, docs)] for k, v in kept.items())]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
