"""What hosted services read is valid by their published schemas, and calls only what this repository has. Nothing of it has run there."""
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCHEMAS = [("vendor.github-workflows", WORKFLOWS), ("custom.github-workflows-require-timeout", WORKFLOWS),
           ("vendor.github-issue-forms", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))),
           ("vendor.citation-file-format", [ROOT / "CITATION.cff"])]
TARGETS = set(re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[0].split())


def checked(schema: str, files: list[Path]) -> subprocess.CompletedProcess:
    """check-jsonschema with a schema that it brings along, so that nothing is downloaded."""
    return subprocess.run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, "--default-filetype", "yaml", *files],
                          capture_output=True, text=True)


def steps(path: Path) -> list[dict]:
    return [step for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize(("schema", "files"), SCHEMAS, ids=[schema for schema, _ in SCHEMAS])
def test_files_fit_the_schema(schema, files):
    assert files
    done = checked(schema, files)
    assert done.returncode == 0, done.stdout


def test_the_schema_notices_a_fault(tmp_path):
    for old, new in (("runs-on:", "run-on:"), ("    timeout-minutes: 60\n", "")):
        text = (ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
        (tmp_path / "x.yml").write_text(text.replace(old, new), encoding="utf-8")
        assert any(checked(schema, [tmp_path / "x.yml"]).returncode for schema, _ in SCHEMAS[:2]), new


def test_workflows_run_what_there_is():
    runs = [step["run"] for path in WORKFLOWS for step in steps(path) if "run" in step]
    called = {target for run in runs for target in re.findall(r"\bmake (\S+)", run)}
    assert called == {"notebooks", "book", "release", "reproduce"} and called <= TARGETS
    extras = {extra for run in runs for extra in re.findall(r"\.\[(\w+)\]", run)}
    assert extras == {"test"} and extras <= set(PROJECT["optional-dependencies"])
    [script] = [run for run in runs if "GITHUB_REF_NAME#v" in run]
    for tag, status in ((f"v{PROJECT['version']}", 0), ("v9.9.9", 1)):
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"})
        assert done.returncode == status, tag


def test_the_tests_run_on_every_supported_python_and_on_three_systems():
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))["jobs"]["unit"]["strategy"]["matrix"]
    supported = SpecifierSet(PROJECT["requires-python"])
    assert matrix["python"] == [version for version in (f"3.{minor}" for minor in range(9, 20)) if f"{version}.1" in supported]
    assert len(matrix["os"]) == 3


def test_the_container_installs_by_a_rule_of_the_makefile():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"] == "make .venv/run.stamp"
    assert "\n.venv/run.stamp:" in (ROOT / "Makefile").read_text(encoding="utf-8")
