"""pyproject.toml is the one source of dependencies; environment.yml and constraints.txt must agree with it."""
import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from rattler import MatchSpec

import s2dm_mini
from s2dm_mini.series import shipped

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUN = [Requirement(text) for text in PROJECT["dependencies"]]
TEST = [Requirement(text) for text in PROJECT["optional-dependencies"]["test"]]
OPTIONAL = {"diffusers", "huggingface-hub", "voila"}  # imported only when used: by interop, and by series.shipped
BOOK = [Requirement(text) for text in PROJECT["optional-dependencies"]["book"]]
RELEASE = [Requirement(text) for text in PROJECT["optional-dependencies"]["release"]]
CONDA_NAMES = {"torch": "pytorch"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def conda_specs(file: str) -> dict[str, str]:
    """name → version range, as the file has them; each is checked to be a valid conda spec."""
    specs, listed = {}, yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["dependencies"]
    by_pip = [text for entry in listed if isinstance(entry, dict) for text in entry["pip"]]
    for text in [*(entry for entry in listed if isinstance(entry, str)), *by_pip]:
        MatchSpec(text, strict=True)
        name, _, version = text.partition(" ")
        specs[name] = version
    return specs


@pytest.mark.parametrize("file", ["environment.yml", "binder/environment.yml"])
def test_environment_yml_has_the_same_ranges(file):
    expected = {CONDA_NAMES.get(r.name, r.name): r.specifier for r in RUN} | {"python": SpecifierSet(PROJECT["requires-python"])}
    found = {name: SpecifierSet(version) for name, version in conda_specs(file).items() if name != "pip"}
    assert found == expected


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found = {}
    for line in lines:
        name, equals, version = line.partition("==")
        assert equals and "+" not in version, f"constraints.txt must pin exactly, without a build mark, not {line!r}"
        found[canonical(name)] = Version(version)
    return found


def test_binder_installs_the_package_after_the_same_environment():
    top, binder = (yaml.safe_load((ROOT / folder / "environment.yml").read_text(encoding="utf-8")) for folder in ("", "binder"))
    assert binder == top
    script = ROOT / "binder" / "postBuild"
    assert os.access(script, os.X_OK), "Binder runs postBuild only if it is executable: chmod +x binder/postBuild"
    assert "pip install --no-deps -e ." in script.read_text(encoding="utf-8").splitlines()


def test_the_tests_can_build_the_book():
    assert {str(requirement) for requirement in BOOK} <= {str(requirement) for requirement in TEST}


def test_the_book_can_import_what_it_documents():
    """Docstrings are read off modules: what those import must come with the extra `book`, not only with `test`."""
    optional = {module for path in (ROOT / "s2dm_mini").rglob("*.py") for node in ast.parse(path.read_text(encoding="utf-8")).body
                if isinstance(node, ast.ImportFrom) and (module := (node.module or "").partition(".")[0]) in OPTIONAL}
    assert "diffusers" in optional and "diffusers" in {canonical(requirement.name) for requirement in BOOK}


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    paper, = citation["references"]
    assert paper["url"].endswith("2401.01520") and [author["family-names"] for author in paper["authors"]] == ["Wang", "Li"]


@pytest.mark.parametrize("requirement", RUN + TEST + RELEASE, ids=lambda r: r.name)
def test_constraints_lie_in_the_ranges(requirement):
    version = pins()[canonical(requirement.name)]
    assert version in requirement.specifier


def test_the_wheel_holds_a_course_and_no_solutions(tmp_path):
    """Built as `make release` does. Student copies are there where they have been built; the masters with the solutions never are."""
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name.removeprefix("s2dm_mini/course/") for name in names if name.startswith("s2dm_mini/course/")}
    built = {place for pattern in shipped.FILES for path in ROOT.glob(pattern) for place in [path.relative_to(ROOT).as_posix()]}
    assert inside == built and "notebooks/00_start_here.ipynb" in inside and "data/results/tune.csv" in inside
    assert not [name for name in names if "notebooks/labs/" in name or name.startswith(("tests/", "notebooks/", "data/"))]
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "s2dm_mini").rglob("*.py")}
    assert modules <= names and "s2dm_mini/checkpoints_shipped/manifest.json" in names


def test_pictures_that_notebooks_read_are_part_of_the_course():
    text = "".join(path.read_text(encoding="utf-8").replace("\\", "") for path in (ROOT / "notebooks").glob("*.ipynb"))
    read = set(re.findall(r'with_name\("pictures"\) / "([^"]+)"', text))
    assert "left-noise.png" in read and {f"data/pictures/{name}" for name in read} <= set(shipped.files())


def test_the_version_is_told_once_and_in_the_changelog():
    assert s2dm_mini.__version__ == PROJECT["version"]
    assert f"\n## {PROJECT['version']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_tests_can_build_the_release():
    assert {"build", "hatchling"} <= {r.name for r in TEST} and {"build", "hatchling", "twine"} <= {r.name for r in RELEASE}
    assert all(requirement.specifier == next(r.specifier for r in TEST if r.name == requirement.name)
               for requirement in RELEASE if requirement.name != "twine")


def test_what_the_package_imports_is_declared():
    """Every third-party module that the library imports is a run dependency or comes with one that exists to bring it."""
    comes_with = {"nbformat": "nbclient", "PIL": "pillow", "cycler": "matplotlib", "traitlets": "ipywidgets",
                  "IPython": "ipywidgets"}
    declared = {canonical(r.name) for r in RUN}
    for path in (ROOT / "s2dm_mini").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for name in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names:
                assert canonical(comes_with.get(name, name)) in declared | OPTIONAL, f"{path.name} imports {name}"


def test_importing_the_package_brings_no_heavy_module():
    """design: at most 0.2 s over torch. What costs more than that must not come with the import."""
    heavy = {"matplotlib", "accelerate", "papermill", "diffusers", "torchmetrics", "ipywidgets", "pooch", "tyro", "scipy"}
    code = f"import sys, s2dm_mini; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_path_of_one_machine_in_notebooks_and_texts():
    kinds = ("*.md", "notebooks/**/*.md", "notebooks/**/*.ipynb", "data/**/*.md", "data/**/*.json")
    for path in [path for kind in kinds for path in ROOT.glob(kind)]:
        found = re.search(r"/(home|root|work|Users|tmp)/\w+", path.read_text(encoding="utf-8"))
        assert not found, f"{path.name} holds {found.group(0)}"
