"""Changes the library in one place at a time and counts how many of these mutants its tests notice: python tests/stress/mutants.py

A mutant that no test notices is a line that could be wrong. Those that live are compared with survivors.md, which gives each a reason:
the command fails if one is not in it, or if fewer than nine in ten are noticed.

Own code, because of the two well-kept tools mutmut 3 leaves out what counts here, numbers at module level (the tables of weights, the
registry of samplers) and decorated functions (`invert`, `deis_coefficients`), and cosmic-ray starts Python and torch anew for each
mutant. Here torch is imported once; each mutant is a fork that runs the tests of its module, the fastest first, up to the first that
fails. Left alone: docstrings, annotations, `__repr__`, the texts of errors, warnings and f-strings, and zip's strict=True, a guard.
"""
import argparse
import ast
import gc
import importlib.util
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from itertools import pairwise
from pathlib import Path
from types import CodeType, FunctionType

TESTS = Path(__file__).resolve().parent.parent
LIBRARY = TESTS.parent / "s2dm_mini"
SURVIVORS = Path(__file__).with_name("survivors.md")
# A module's own tests, not those of others that happen to use it.
TARGETS = {
    "schedule": "test_schedule.py", "losses": "test_losses.py", "denoisers": "test_denoisers.py", "latents": "test_latents.py",
    "guidance": "test_guidance.py",
    **{f"samplers.{name}": "samplers/test_samplers.py" for name in ("common", "ddim", "ddpm", "deis", "dpm_solver", "pndm", "__init__")},
}
# What the tests import and nobody mutates, loaded before the forks.
PRELOADED = ("torch", "torch.distributions", "numpy", "mpmath", "hypothesis", "pytest", "einops", "safetensors.torch",
             "diffusers.schedulers")
WANTED = 0.9
CPU_SECONDS = 150  # more than any of these files takes

ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
              ast.Mod: ast.Mult, ast.MatMult: ast.Mult}
COMPARISONS = {ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
               ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
               ast.NotIn: (ast.In,)}
MODULES = {"torch", "np", "math", "warnings", "self", "cls"}  # what stands before a function's name, not before a method's


@dataclass
class Mutant:
    """One change: the child of `parent` in `field` (at `index`, where that is a list) becomes `new`."""

    module: str
    tree: ast.Module
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST
    where: str  # function
    in_function: bool  # or outside, where it takes effect when the module is imported
    before: str = ""
    after: str = ""

    def swap(self) -> None:
        """Make the change; a second call takes it back."""
        if self.index is None:
            old = getattr(self.parent, self.field)
            setattr(self.parent, self.field, self.new)
            self.new = old
        else:
            siblings = getattr(self.parent, self.field)
            siblings[self.index], self.new = self.new, siblings[self.index]

    def code(self) -> CodeType:
        """The module with the change in it, which stays in the tree: once in a process."""
        self.swap()
        return compile(ast.fix_missing_locations(self.tree), str(source_of(self.module)), "exec")

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.module, self.where, self.before, self.after


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of a node with other fields."""
    return ast.copy_location(type(node)(**dict(ast.iter_fields(node)) | fields), node)


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What a node may become."""
    match node:
        case ast.BinOp() | ast.AugAssign() if type(node.op) in ARITHMETIC:
            yield changed(node, op=ARITHMETIC[type(node.op)]())
        case ast.Compare():
            for i, op in enumerate(node.ops):
                yield from (changed(node, ops=[*node.ops[:i], other(), *node.ops[i + 1:]]) for other in COMPARISONS[type(op)])
        case ast.BoolOp():
            yield changed(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
            for i in range(len(node.values)):
                rest = node.values[:i] + node.values[i + 1:]
                yield rest[0] if len(rest) == 1 else changed(node, values=rest)
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Constant(value=bool()):
            yield changed(node, value=not node.value)
        case ast.Constant(value=int()):
            yield changed(node, value=node.value + 1)
            yield changed(node, value=node.value - 1)
        case ast.Constant(value=float()):
            yield changed(node, value=node.value * 2 or 1.0)
        case ast.Constant(value=str()):
            yield changed(node, value=node.value + "?")
        case ast.If() | ast.While() if not isinstance(node.test, ast.Compare | ast.UnaryOp | ast.BoolOp):
            yield changed(node, test=ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test))
        case ast.IfExp():
            yield changed(node, body=node.orelse, orelse=node.body)
        case ast.Call():
            for i, (a, b) in enumerate(pairwise(node.args)):
                if ast.dump(a) != ast.dump(b):
                    yield changed(node, args=[*node.args[:i], b, a, *node.args[i + 2:]])
            for i, keyword in enumerate(node.keywords):
                if keyword.arg != "strict":
                    yield changed(node, keywords=node.keywords[:i] + node.keywords[i + 1:])
            if isinstance(node.func, ast.Attribute) and not (isinstance(node.func.value, ast.Name) and node.func.value.id in MODULES):
                yield node.func.value
        case ast.Return(value=ast.AST()):
            yield changed(node, value=ast.copy_location(ast.Constant(None), node))
        case ast.Raise() | ast.Delete() | ast.Expr(value=ast.Call() | ast.Yield()):
            yield ast.copy_location(ast.Pass(), node)
        case ast.FunctionDef() if node.decorator_list:
            yield changed(node, decorator_list=[])


def slots(node: ast.AST, where: str = "", inside: bool = False) -> Iterator[tuple[str, bool, ast.AST, str, int | None, ast.AST]]:
    """(function, whether in its body, parent, field, index, child) for all below a node that is to be mutated."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise):
            continue
        inside = inside or isinstance(node, ast.FunctionDef) and field == "body"
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr) or docstring or getattr(child, "name", "") == "__repr__":
                continue
            # A function within another is exchanged with it.
            named = isinstance(child, ast.FunctionDef | ast.ClassDef) and not inside
            inner = f"{where}.{child.name}".strip(".") if named else where
            yield inner, inside, node, field, index, child
            if ast.unparse(child).startswith("warnings.warn(") or isinstance(child, ast.keyword) and child.arg == "strict":
                continue
            yield from slots(child, inner, inside)


def source_of(module: str) -> Path:
    return (LIBRARY / module.replace(".", "/")).with_suffix(".py")


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module, none of them made yet."""
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))
    plain = ast.unparse(tree).splitlines()
    found = []
    for where, inside, parent, field, index, child in list(slots(tree)):  # listed first: mutants change the tree
        for new in replacements(child):
            mutant = Mutant(module, tree, parent, field, index, new, where or "module", inside)
            mutant.swap()
            lines = ast.unparse(tree).splitlines()
            mutant.swap()
            i = next(i for i, (old, new) in enumerate(zip(plain, lines, strict=False)) if old != new)
            mutant.before, mutant.after = plain[i].strip(), lines[i].strip() if len(lines) == len(plain) else ""
            found.append(mutant)
    return found


# ---------------------------------------------------------------------------------------------------- running

def fork(work: Callable[[], int]) -> int:
    """Do some work in a process of its own, silently, within bounds; returns its exit status, other than 0 if it was stopped."""
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        # A mutant may run for ever, or ask for all the memory there is.
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        status = work()
    finally:
        os._exit(status)


def pytest_main(file: str, *plugins: object) -> int:
    import pytest

    return int(pytest.main(["-x", "-s", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", str(TESTS / file)], plugins=plugins))


class InsteadOf(SourceFileLoader):
    """Finds the module of a mutant, and loads the mutant instead of its file."""

    def __init__(self, mutant: Mutant):
        super().__init__(f"s2dm_mini.{mutant.module.removesuffix('.__init__')}", str(source_of(mutant.module)))
        self.mutant = mutant

    def find_spec(self, name: str, path: object = None, target: object = None):
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return self.mutant.code()


def noticed_at_import(mutant: Mutant) -> bool:
    """Whether a test fails when the library is imported with the mutant in it: for changes outside functions, 2 s each."""
    def work() -> int:
        sys.meta_path.insert(0, InsteadOf(mutant))
        return pytest_main(TARGETS[mutant.module])

    return fork(work) != 0


class Forks:
    """pytest plugin that collects the tests once and runs them once for each mutant, in a fork, with one function's code exchanged.

    The test that noticed the last mutant goes first, as it is likely to notice its neighbour too; then the others, the fastest first.
    """

    def __init__(self, mutants: list[Mutant], notes: Path):
        self.mutants, self.notes = mutants, notes
        self.seconds, self.alive = Counter(), []

    def pytest_runtestloop(self, session) -> bool:
        main = session.config.pluginmanager.get_plugin("main")
        # By file and name; found among all objects, because decorators hide some.
        functions = {(o.__code__.co_filename, o.__code__.co_qualname): o for o in gc.get_objects() if isinstance(o, FunctionType)}
        if lost := {mutant.where for mutant in self.mutants if (str(source_of(mutant.module)), mutant.where) not in functions}:
            raise LookupError(f"no function {', '.join(lost)} to exchange.")

        def untouched() -> int:
            main.pytest_runtestloop(session)
            self.notes.write_text(json.dumps(self.seconds), encoding="utf-8")
            return 0

        def mutated(mutant: Mutant) -> int:
            for code in all_codes(mutant.code()):
                if code.co_qualname == mutant.where:
                    functions[code.co_filename, code.co_qualname].__code__ = code
            main.pytest_runtestloop(session)
            return 0

        if fork(untouched):
            raise SystemExit(1)
        seconds = json.loads(self.notes.read_text(encoding="utf-8"))
        session.items.sort(key=lambda item: seconds[item.nodeid])
        for i, mutant in enumerate(self.mutants):
            if fork(lambda mutant=mutant: mutated(mutant)) == 0:
                self.alive.append(i)
            else:
                noticed = self.notes.read_text(encoding="utf-8")
                session.items.sort(key=lambda item: item.nodeid != noticed)
        self.notes.write_text(json.dumps(self.alive), encoding="utf-8")
        return True

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.notes.write_text(report.nodeid, encoding="utf-8")


def all_codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and those within it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from all_codes(const)


def survivors_among(file: str, mutants: list[Mutant]) -> list[Mutant]:
    """The mutants that no test of the file notices. Exits if the tests fail without a mutant."""
    alive = [mutant for mutant in mutants if not mutant.in_function and not noticed_at_import(mutant)]
    in_functions = [mutant for mutant in mutants if mutant.in_function]
    if in_functions:
        notes = Path(os.environ["HYPOTHESIS_STORAGE_DIRECTORY"]) / "notes"
        if fork(lambda: pytest_main(file, Forks(in_functions, notes))):
            raise SystemExit(f"{file} fails on the library as it is; mend that first.")
        alive += [in_functions[i] for i in json.loads(notes.read_text(encoding="utf-8"))]
    return alive


# --------------------------------------------------------------------------------------------------- the list

def explained() -> dict[tuple[str, str, str, str], str]:
    """The table of survivors.md: key → reason."""
    rows = [line.strip().strip("|").split(" | ") for line in SURVIVORS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return {tuple(cell.strip().strip("`").replace("\\|", "|") for cell in row[:4]): row[4].strip() for row in rows}


def row_of(mutant: Mutant, reason: str) -> str:
    return "| " + " | ".join([*(f"`{cell.replace('|', chr(92) + '|')}`" for cell in mutant.key), reason]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modules", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--sample", type=int, help="only so many mutants a module, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--known", action="store_true", help="only those that survivors.md lists: does each still live?")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in PRELOADED:
        importlib.import_module(name)
    reasons, drawn = explained(), random.Random(args.seed)
    tried, alive = [], []
    for module in args.modules:
        mutants = mutants_of(module)
        if args.known:
            mutants = [mutant for mutant in mutants if mutant.key in reasons]
        if args.sample and args.sample < len(mutants):
            mutants = [mutants[i] for i in sorted(drawn.sample(range(len(mutants)), args.sample))]  # neighbours fail the same test
        tried += mutants
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        for file in dict.fromkeys(TARGETS.values()):
            modules = [module for module in TARGETS if TARGETS[module] == file]
            mutants, start = [mutant for mutant in tried if mutant.module in modules], time.perf_counter()
            if not mutants:
                continue
            survivors, seconds = survivors_among(file, mutants), time.perf_counter() - start
            killed = len(mutants) - len(survivors)
            print(f"{file}: {killed} of {len(mutants)} mutants noticed in {seconds / 60:.0f} minutes", flush=True)
            alive += survivors
            for mutant in survivors:
                if mutant.key not in reasons:
                    print(row_of(mutant, "?"), flush=True)
            if not args.known and not args.sample and set(modules) <= set(args.modules):
                fork(lambda: write_down(modules, len(mutants), killed, seconds))  # noqa: B023, called at once
    killed, unexplained = len(tried) - len(alive), [mutant for mutant in alive if mutant.key not in reasons]
    print(f"{killed} of {len(tried)} mutants noticed ({killed / max(len(tried), 1):.1%}), {len(unexplained)} of the others not explained")
    if not args.known and (unexplained or killed < WANTED * len(tried)):
        raise SystemExit(f"{WANTED:.0%} must be noticed, and each of the others have its reason in {SURVIVORS.name}.")


def write_down(modules: list[str], tried: int, killed: int, seconds: float) -> int:
    """A row in data/results/hardness.csv; in a fork, because it imports the library, which the forks of mutants do for themselves."""
    from table import record

    command = f"python tests/stress/mutants.py --modules {' '.join(modules)}"
    record(f"mutants of {'samplers' if len(modules) > 1 else modules[0]}, noticed by the tests", tried, killed, seconds, command)
    return 0


if __name__ == "__main__":
    main()
