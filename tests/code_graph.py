"""Who imports whom: the import graph of a source tree, and the rules that it must keep.

A checker returns sentences, one for each place that breaks its rule. Nothing is imported or run.
"""

import ast
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Import:
    """One name that a module imports, wherever in the module that is."""

    importer: str
    target: str
    """The module that it is taken from: of this tree, or as written if it is not of this tree."""
    name: str
    """All that is imported, with the module: ``"s5jax.ops.fft_conv"``."""
    line: int


@dataclasses.dataclass(frozen=True)
class Tree:
    """The modules of some packages."""

    root: Path
    files: Mapping[str, Path]
    """Every module by its dotted name; a package stands for its ``__init__.py``."""

    @functools.cached_property
    def parsed(self) -> dict[str, ast.Module]:
        """The syntax tree of each module."""
        return {name: ast.parse(path.read_text("utf-8")) for name, path in self.files.items()}

    @functools.cached_property
    def imports(self) -> list[Import]:
        """All imports of all modules."""
        return [each for name, tree in self.parsed.items() for each in self._imports(name, tree)]

    def only(self, keep: Callable[[str], bool]) -> "Tree":
        """Some of the modules."""
        return Tree(self.root, {name: path for name, path in self.files.items() if keep(name)})

    def where(self, module: str, line: int) -> str:
        """For example ``"s5jax/ops/_scan.py:12"``."""
        return f"{self.files[module].relative_to(self.root)}:{line}"

    def _imports(self, module: str, tree: ast.Module) -> Iterator[Import]:
        """Those in functions and under ``TYPE_CHECKING`` are imports like others."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(module, node)
                names = [f"{source}.{alias.name}".removesuffix(".*") for alias in node.names]
            elif _is_dynamic_import(node):
                names = [node.args[0].value]
            else:
                continue
            for name in names:
                yield Import(module, self._module_of(name), name, node.lineno)

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module
        is_package = self.files[module].name == "__init__.py"
        parents = module.split(".")
        package = parents[: len(parents) - node.level + is_package]
        return ".".join([*package, *([node.module] if node.module else [])])

    def _module_of(self, name: str) -> str:
        """The longest part of a dotted name that is a module here, or the whole name."""
        parts = name.split(".")
        candidates = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        return next((each for each in candidates if each in self.files), name)


def read_tree(root: Path, *packages: str) -> Tree:
    """Finds the modules of packages in a folder."""
    files = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return Tree(root, files)


def find_circles(tree: Tree) -> list[str]:
    """Modules that import each other, directly or through others (Tarjan's algorithm)."""
    edges: dict[str, set[str]] = {name: set() for name in tree.files}
    for each in tree.imports:
        if each.target in tree.files:
            edges[each.importer].add(each.target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            circle = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(circle) > 1 or node in edges[node]:
                found.append(f"circle of imports: {', '.join(sorted(circle))}")

    for name in tree.files:
        if name not in index:
            visit(name)
    return found


def check_direction(
    tree: Tree, order: Sequence[str], room: Callable[[str], str | None]
) -> list[str]:
    """Checks that imports run one way.

    Args:
        tree: the modules.
        order: the names of the rooms; each may import itself and those after it.
        room: the room of a module, None if it has none, which is an error.
    """
    broken = []
    for name in tree.files:
        if room(name) not in order:
            broken.append(f"{tree.where(name, 1)}: {name} is in no room")
    for each in tree.imports:
        rooms = room(each.importer), room(each.target)
        if each.target in tree.files and all(one in order for one in rooms):
            above, below = map(order.index, rooms)
            if below < above:
                where = tree.where(each.importer, each.line)
                broken.append(f"{where}: {rooms[0]} imports {each.target} of {rooms[1]}")
    return broken


def check_libraries(tree: Tree, allowed: Callable[[str], frozenset[str] | None]) -> list[str]:
    """Checks which libraries a module imports.

    Args:
        tree: the modules.
        allowed: for a module the top-level names that it may import besides those of this tree;
            None if it may import any.
    """
    broken = []
    for each in tree.imports:
        names, library = allowed(each.importer), each.name.partition(".")[0]
        if names is not None and each.target not in tree.files and library not in names:
            broken.append(f"{tree.where(each.importer, each.line)}: imports {each.name}")
    return broken


def check_rooms_of(tree: Tree, names: Mapping[str, Callable[[str], bool]]) -> list[str]:
    """Checks that libraries, and attributes such as ``sys.argv``, are used in their rooms only.

    Args:
        tree: the modules.
        names: for each dotted name, which modules may use it or what is in it.
    """
    broken = []
    for module, tree_of_module in tree.parsed.items():
        used = [(each.name, each.line) for each in tree.imports if each.importer == module]
        used += [(dotted, node.lineno) for node, dotted in _attributes(tree_of_module)]
        for name, may_use in names.items():
            lines = {line for dotted, line in used if f"{dotted}.".startswith(f"{name}.")}
            if not may_use(module):
                broken += [f"{tree.where(module, line)}: uses {name}" for line in sorted(lines)]
    return broken


def check_public(tree: Tree, library: str) -> list[str]:
    """Checks that modules outside a library use none of its names that begin with "_"."""
    broken = []
    for module, tree_of_module in tree.parsed.items():
        if module.split(".")[0] == library:
            continue
        used = [(each.name, each.line) for each in tree.imports if each.importer == module]
        used += [(dotted, node.lineno) for node, dotted in _attributes(tree_of_module)]
        for dotted, line in used:
            first, *others = dotted.split(".")
            if first == library and any(map(_is_private, others)):
                broken.append(f"{tree.where(module, line)}: uses {dotted}")
    return broken


def check_private_files(tree: Tree) -> list[str]:
    """Checks that a file whose name begins with "_" is imported inside its package only."""
    broken = []
    for each in tree.imports:
        package, _, name = each.target.rpartition(".")
        if each.target in tree.files and _is_private(name):
            if not f"{each.importer}.".startswith(f"{package}."):
                where = tree.where(each.importer, each.line)
                broken.append(f"{where}: imports the private {each.target}")
    return broken


def check_not_imported(tree: Tree, is_leaf: Callable[[str], bool]) -> list[str]:
    """Checks that nothing imports some modules, such as commands."""
    return [
        f"{tree.where(each.importer, each.line)}: imports {each.target}"
        for each in tree.imports
        if is_leaf(each.target)
    ]


def check_file_lengths(tree: Tree, limit: int, longer: Mapping[str, int]) -> list[str]:
    """Checks that no file has more lines than the limit.

    Args:
        tree: the modules.
        limit: of lines.
        longer: higher limits of some modules, which end when they are no longer needed.
    """
    broken = []
    for name, path in tree.files.items():
        n = len(path.read_text("utf-8").splitlines())
        if n > longer.get(name, limit):
            broken.append(f"{tree.where(name, 1)}: {n} lines, more than {longer.get(name, limit)}")
        elif name in longer and n <= limit:
            broken.append(f"{tree.where(name, 1)}: {n} lines need no higher limit than {limit}")
    return broken + [
        f"{name} has a higher limit and is gone" for name in longer.keys() - tree.files
    ]


def check_function_lengths(tree: Tree, limit: int) -> list[str]:
    """Checks that no body of a function but a constructor's is longer, its docstring left out."""
    broken = []
    for module, tree_of_module in tree.parsed.items():
        for node in ast.walk(tree_of_module):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            n = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if n > limit and node.name != "__init__":
                broken.append(f"{tree.where(module, node.lineno)}: {node.name} has {n} lines")
    return broken


def check_calls(tree: Tree, names: frozenset[str], is_checked: Callable[[str], bool]) -> list[str]:
    """Checks that some modules call none of these builtins, such as ``open``."""
    return [
        f"{tree.where(module, node.lineno)}: calls {node.func.id}"
        for module in filter(is_checked, tree.files)
        for node in ast.walk(tree.parsed[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _attributes(tree: ast.Module) -> Iterator[tuple[ast.Attribute, str]]:
    """Whole chains such as ``sys.argv``; a name that was imported stands for where it is from."""
    origin = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.asname or alias.name: alias.name for alias in node.names}
            origin |= {local: f"{node.module}.{name}" for local, name in names.items()}
    chains = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    within = {node.value for node in chains}
    for node in (node for node in chains if node not in within):
        parts, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield node, ".".join([origin.get(inner.id, inner.id), *reversed(parts)])


def _is_dynamic_import(node: ast.AST) -> bool:
    """Whether it is ``import_module("...")`` or ``__import__("...")`` with a literal name."""
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else None
    called = node.func.id if isinstance(node.func, ast.Name) else called
    return called in ("import_module", "__import__") and isinstance(node.args[0].value, str)
