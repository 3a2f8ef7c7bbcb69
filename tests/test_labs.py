"""The labs: the teacher's solution gets all points, an untouched copy none, and a wrong solution loses just what it should.

Masters go through `otter assign` once; solved and untouched copies through `otter run` as at a school, each in a kernel of its
own. Wrong solutions are graded in this process, by otter's own checks on the generated test files, which takes a second each.
"""
import ast
import csv
import re
import runpy
import shutil
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch

assign = pytest.importorskip("otter.assign")

from otter.check.notebook import Notebook  # noqa: E402
from otter.execute import Checker  # noqa: E402

FOLDER = Path(__file__).resolve().parent.parent / "notebooks" / "labs"
sys.path.insert(0, str(FOLDER))
import answers  # noqa: E402
import minutes  # noqa: E402

LABS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
POINTS = {
    "lab1_noise_schedule": {"q1": 3, "q2": 4, "q3": 3, "q4": 4, "q5": 3, "q6": 3},
    "lab2_ddim": {"q1": 4, "q2": 3, "q3": 3, "q4": 3, "q5": 2, "q6": 3, "q7": 2},
    "lab3_skip_step_loss": {"q1": 4, "q2": 5, "q3": 3, "q4": 3, "q5": 5},
    "lab4_multistep": {"q1": 3, "q2": 3, "q3": 5, "q4": 3, "q5": 3, "q6": 3},
    "lab5_training": {"q1": 2, "q2": 3, "q3": 5, "q4": 3, "q5": 2, "q6": 3, "q7": 2},
}

# lab → (mistake, question, points lost, what the solution says in its cell, what the student says instead)
WRONG = {
    "lab1_noise_schedule": [
        ("the product leaves β_t out", "q1", 2, ".cumprod(0)", ".cumprod(0) / (1 - beta)"),
        ("a sum of β", "q1", 3, "(1 - beta).cumprod(0)", "1 - beta.cumsum(0)"),
        ("no roots", "q2", 3, "a.sqrt() * x0 + (1 - a).sqrt() * eps", "a * x0 + (1 - a) * eps"),
        ("ᾱ of the step before", "q2", 2, "alpha_bar[t]", "alpha_bar[t - 1]"),
        ("columns instead of images", "q2", 3, ".reshape(-1, *[1] * (x0.ndim - 1))", ""),
        ("no root below x̂_0", "q3", 2, "* eps) / a.sqrt()", "* eps) / a"),
        ("picture and noise confused", "q3", 1, "(x - a.sqrt() * x0) / (1 - a).sqrt()", "(x - (1 - a).sqrt() * x0) / a.sqrt()"),
        ("the picture is the target", "q4", 2, "error = eps - denoiser", "error = x0 - denoiser"),
        ("a sum over pixels", "q4", 1, ".mean(dim=1)", ".sum(dim=1)"),
        ("one noise for the batch", "q4", 1, "torch.randn(x0.shape", "torch.zeros_like(x0) + torch.randn(x0[:1].shape"),
        ("noise that is not Gaussian", "q4", 1, "torch.randn(x0.shape, generator=generator, dtype=x0.dtype)",
         "12**0.5 * (torch.rand(x0.shape, generator=generator, dtype=x0.dtype) - 0.5)"),
        ("E[x_0] for E[ε]", "q5", 2, "return (1 - a).sqrt() / (", "return mean + a.sqrt() * v / ("),
        ("the mean not shrunk", "q5", 2, "(x - a.sqrt() * mean)", "(x - mean)"),
        ("a standard deviation for the error", "q6", 1, "loss.std() / len(loss) ** 0.5", "loss.std()"),
        ("the same noise at each t", "q6", 1, "alpha_bar, generator)  #", "alpha_bar, torch.Generator().manual_seed(0))  #"),
    ],
    "lab2_ddim": [
        ("alpha_bar[-1] for the clean picture", "q1", 1, "1.0 if t == -1 else ", ""),
        ("the grid ends at t = 0", "q1", 2, "range(steps + 1)]", "range(steps)] + [0]"),
        ("one step too few", "q1", 3, "range(steps + 1)]", "range(steps)]"),
        ("image and noise confused", "q2", 3, "a_s**0.5 * x0 + (1 - a_s) ** 0.5 * eps", "a_s**0.5 * eps + (1 - a_s) ** 0.5 * x0"),
        ("no root for the noise", "q2", 3, "(x - (1 - a_t) ** 0.5 * eps)", "(x - (1 - a_t) * eps)"),
        ("asked at s", "q3", 2, "(len(x),), t))", "(len(x),), s))"),
        ("the last step left out", "q3", 3, "step_pairs(len(alpha_bar), steps):", "step_pairs(len(alpha_bar), steps)[:-1]:"),
        ("asked about x_T each time", "q3", 2, "denoiser(x, ", "denoiser(x_T, "),
        ("the old noise not reduced", "q4", 2, "(1 - a_s - variance) ** 0.5 * eps", "(1 - a_s) ** 0.5 * eps"),
        ("the variance without its root", "q4", 2, "variance**0.5 * z", "variance * z"),
        ("η without its square", "q4", 1, "eta**2", "eta"),
        ("fresh noise used again", "q5", 1, "z = torch.randn", "z = z if t < len(alpha_bar) - 1 else torch.randn"),
        ("one noise for the batch", "q5", 1, "torch.randn(x.shape", "torch.zeros_like(x) + torch.randn(x[:1].shape"),
        ("the package's own variance", "q6", 2, "    gain =", """    from s2dm_mini.denoisers import gaussian_ddim_variance

    table = NoiseSchedule(alpha_bar)
    return gaussian_ddim_variance(v, table, table.timesteps(steps)).item() / v
    gain ="""),
        ("a standard deviation for the variance", "q6", 2, "factor.item() ** 2 / v", "factor.item() / v"),
        ("one step too many", "q6", 1, "next(steps for", "1 + next(steps for"),
        ("x̂_0 clipped, ε as before", "q7", 1, "    eps = (x - a_t**0.5 * x0) / (1 - a_t) ** 0.5\n", ""),
        ("not clipped", "q7", 2, ".clamp(-1, 1)", ""),
    ],
    "lab3_skip_step_loss": [
        ("a negative index", "q1", 1, "return torch.where(t >= skip, ((1 - a) / a).sqrt(), 0.0)",
         "return (alpha_bar[t - skip] / alpha_bar[t] - 1).abs().sqrt()"),
        ("no root in c", "q1", 3, "((1 - a) / a).sqrt()", "(1 - a) / a"),
        ("one step too short", "q1", 3, "(t - skip)", "(t - skip + 1)"),
        ("t = skip left out", "q1", 1, "t >= skip", "t > skip"),
        ("the same noise for ε₂", "q2", 2, "eps_2 = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)", "eps_2 = eps_1"),
        ("one ε₂ for the batch", "q2", 1, "eps_2 = torch.randn(x0.shape", "eps_2 = torch.randn(x0[:1].shape"),
        ("τ and 1 − τ exchanged", "q2", 3, "tau * l_0 + (1 - tau) * l_skip", "(1 - tau) * l_0 + tau * l_skip"),
        ("τ also where t < skip", "q2", 1, "l_skip, l_0)", "l_skip, tau * l_0)"),
        ("the network asked twice", "q2", 1, "c * f)", "c * denoiser(a.sqrt() * x0 + (1 - a).sqrt() * eps_1, t))"),
        ("the package's own loss", "q2", 5, "    image =", """    from s2dm_mini.losses import s2dm_loss

    return s2dm_loss(denoiser, x0, t, NoiseSchedule(alpha_bar), skip, tau, generator=generator)
    image ="""),
        ("c without its square", "q3", 1, "return tau / (tau + (1 - tau) * c**2)", "return tau / (tau + (1 - tau) * c)"),
        ("both readings alike", "q3", 2, "return (tau + (1 - tau) * c) /", "return tau /"),
        ("three different noises", "q4", 1, "manual_seed(seed)", "manual_seed(seed + int(4 * s))"),
        ("the vertex without its 2", "q4", 2, "-B / (2 * A)", "-B / A"),
        ("the grid does not reach ᾱ = 1", "q5", 3, "[*grid[1:], None]", "[*grid[1:], 0]"),
        ("the scale left out beside x̂_0", "q5", 1, "+ (1 - a_s) ** 0.5 * f", "+ (1 - a_s) ** 0.5 * (1 - a_t) ** 0.5 / (a_t * v + 1 - a_t)"),
        ("helps means more variance", "q5", 2, "off[0] < off[1]", "off[0] > off[1]"),
    ],
    "lab4_multistep": [
        ("alpha_bar[-1] for the clean picture", "q1", 1, "0.0 if t == -1 else ", ""),
        ("ρ without its root", "q1", 2, ".sqrt()", ""),
        ("a step upwards", "q1", 2, "(rho_s - rho_t)", "(rho_t - rho_s)"),
        ("the textbook's weights", "q2", 2, "h / (2 * h_before)", "0.5"),
        ("strides the wrong way round", "q2", 2, "h / (2 * h_before)", "h_before / (2 * h)"),
        ("the grid does not reach ᾱ = 1", "q3", 5, "zip(grid[:-1], grid[1:],", "zip(grid[:-2], grid[1:-1],"),
        ("the mix remembered instead of the answer", "q3", 1, "before = eps, h", "before = slope, h"),
        ("y shown to the denoiser", "q3", 3, "alpha_bar[t].item() ** 0.5 * y,", "y,"),
        ("asked again instead of remembered", "q3", 2, "w_1 * before[0]",
         "w_1 * denoiser(alpha_bar[t].item() ** 0.5 * y, torch.full((len(y),), t))"),
        ("new noise for the second sampler", "q4", 2, "multistep_sample(denoiser, x_T,",
         "multistep_sample(denoiser, torch.randn_like(x_T),"),
        ("no root in the error", "q4", 1, ".mean(dim=1).sqrt()", ".mean(dim=1)"),
        ("the sign of the slope", "q5", 2, "-(u @ w", "(u @ w"),
        ("a line through the origin", "q5", 3, "u, w = u - u.mean(), w - w.mean()", ""),
        ("first and last point only", "q5", 1, "-(u @ w / (u @ u)).item()", "-((w[-1] - w[0]) / (u[-1] - u[0])).item()"),
        ("errors not paired", "q6", 1, "difference.std() /", "(error_a.var() + error_b.var()).sqrt() /"),
        ("never undecided", "q6", 1, "<= T_975[len(error_a) - 1] * standard_error", "< 0"),
        ("two standard errors", "q6", 1, "T_975[len(error_a) - 1]", "2"),
        ("as many degrees of freedom as images", "q6", 1, "len(error_a) - 1", "len(error_a)"),
    ],
    "lab5_training": [
        ("one t for the batch", "q1", 1, "torch.randint(T, (batch,), generator=generator)",
         "torch.randint(T, (1,), generator=generator).expand(batch)"),
        ("never the strongest noise", "q1", 1, "torch.randint(T, ", "torch.randint(T - 1, "),
        ("the decay is the new one's weight", "q2", 2, "1 - decay", "decay"),
        ("the network moved too", "q2", 1, "mean.lerp_(now, 1 - decay)", "mean.lerp_(now, 1 - decay), now.lerp_(mean, 0.1)"),
        ("gradients add up", "q3", 1, "        optimizer.zero_grad()\n", ""),
        ("a sum over the batch", "q3", 1, ".mean()\n", ".sum()\n"),
        ("the raw weights", "q3", 1, "return average.eval()", "return network.eval()"),
        ("eval forgotten", "q3", 1, "return average.eval()", "return average"),
        ("noise drawn once", "q3", 2, "tau=tau, generator=generator)", "tau=tau, generator=torch.Generator().manual_seed(0))"),
        ("never in training mode", "q3", 1, "network.train()", "network.eval()"),
        ("the average is the network", "q3", 1, "copy.deepcopy(network), torch", "network, torch"),
        ("the second goes on where the first ended", "q4", 2, "copy.deepcopy(start)", "start"),
        ("other noises for the second twin", "q4", 1, "torch.Generator().manual_seed(seed)",
         "torch.Generator().manual_seed(seed + len(pair))"),
        ("other dropout for the second twin", "q4", 1, "        torch.manual_seed(seed)\n", ""),
        ("eval forgotten when measuring", "q5", 1, "    network.eval()\n", ""),
        ("f² below instead of E²", "q5", 2, "(E * E).sum()", "(f * f).sum()"),
        ("as many degrees of freedom as seeds", "q6", 2, "T_975[n - 1]", "{3: 3.182, 5: 2.571}[n]"),
        ("two standard errors at three seeds", "q6", 2, "T_975[n - 1]", "2"),
        ("never undecided", "q6", 1, "abs(mean) <= half", "half < 0"),
        ("helps means a larger distance", "q6", 2, "mean < 0", "mean > 0"),
        ("the judging samples choose", "q7", 1, "score(cell, choose_seed)", "score(cell, judge_seed)"),
        ("judged where chosen", "q7", 1, "score(best, judge_seed)", "score(best, choose_seed)"),
    ],
}


@pytest.fixture(scope="session")
def assigned(tmp_path_factory):
    """Folders made by `otter assign` from each master, without its own test run: the tests below are that."""
    folders = {lab: tmp_path_factory.mktemp(lab) for lab in LABS}
    for lab, folder in folders.items():
        assign.main(str(FOLDER / f"{lab}.ipynb"), str(folder), no_run_tests=True)
    return folders


def test_every_lab_has_its_table():
    assert list(POINTS) == LABS == list(WRONG)
    assert all(sum(points.values()) == 20 for points in POINTS.values())
    assert all(len(mistakes) >= 5 for mistakes in WRONG.values())


# ------------------------------------------------------------------------------------- as at a school: otter run

def test_a_folder_without_a_notebook_gets_its_table_too(tmp_path, monkeypatch):
    for name in ("in/notes.pdf", f"graders/{LABS[0]}.zip"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("nothing", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["grade.py", LABS[0], str(tmp_path / "in"), "--graders", str(tmp_path / "graders"), "--out",
                                      str(tmp_path / "out")])
    assert runpy.run_path(str(FOLDER / "grade.py"))["main"]() == 1
    assert "notes.pdf" in (tmp_path / "out" / LABS[0] / "grades.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("lab", LABS)
def test_the_solution_gets_all_points_and_an_untouched_copy_none(lab, assigned, tmp_path, monkeypatch, capsys):
    """By notebooks/labs/grade.py, which reads the results.json of `otter run`: that one exits with 0 whatever it finds."""
    (tmp_path / "in").mkdir()
    (tmp_path / "graders").mkdir()
    shutil.copy(assigned[lab] / "autograder" / f"{lab}.ipynb", tmp_path / "in" / "solved.ipynb")
    shutil.copy(assigned[lab] / "student" / f"{lab}.ipynb", tmp_path / "in" / "untouched.ipynb")
    grader, = (assigned[lab] / "autograder").glob("*.zip")
    shutil.copy(grader, tmp_path / "graders" / f"{lab}.zip")
    broken = lab == LABS[0]  # once is enough
    if broken:
        (tmp_path / "in" / "broken.ipynb").write_text("not a notebook", encoding="utf-8")
        (tmp_path / "in" / "notes.pdf").write_text("%PDF", encoding="utf-8")
        (tmp_path / "in" / "folder").mkdir()
        solved = nbformat.read(tmp_path / "in" / "solved.ipynb", as_version=4)
        solved.metadata["kernelspec"] = {"name": "conda-env-foo", "display_name": "foo", "language": "python"}
        nbformat.write(solved, tmp_path / "in" / "conda.IPYNB")
        with zipfile.ZipFile(tmp_path / "in" / "solved.ZIP", "w") as archive:
            archive.write(tmp_path / "in" / "conda.IPYNB", "lab.ipynb")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the kernels', which conftest.py does not reach
    options = ["--graders", str(tmp_path / "graders"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["grade.py", lab, str(tmp_path / "in"), *options])
    assert runpy.run_path(str(FOLDER / "grade.py"))["main"]() == (1 if broken else 0)

    with open(tmp_path / lab / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row.pop("submission"): row for row in csv.DictReader(file)}
    points = {name: {question: float(row[question]) for question in POINTS[lab]} for name, row in rows.items() if not row["note"]}
    assert {row[f"w{i}"] for row in rows.values() for i in (1, 2, 3)} == {""}, "points of written answers are the teacher's to fill in"
    sheet = (tmp_path / lab / "written.md").read_text(encoding="utf-8")
    assert sheet.count("\n**Rubric.**") == 3 and sheet.count("### untouched.ipynb: w") == 3
    assert sheet.count("(no answer)") >= 3, "untouched copies have no answers"
    solved = ["solved.ipynb", "conda.IPYNB", "solved.ZIP"] if broken else ["solved.ipynb"]
    assert points == dict.fromkeys(solved, POINTS[lab]) | {"untouched.ipynb": dict.fromkeys(POINTS[lab], 0)}
    assert float(rows["solved.ipynb"]["total"]) == 20
    if broken:
        reasons = {"broken.ipynb": "cannot be read", "notes.pdf": "neither a notebook", "folder": "is a folder"}
        assert {name for name, row in rows.items() if row["note"]} == set(reasons)
        assert all(reason in rows[name]["note"] and rows[name]["total"] == "" for name, reason in reasons.items())
        assert "broken.ipynb: NOT GRADED" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------- in this process: mistakes

@pytest.fixture(scope="session")
def tests_of(assigned, tmp_path_factory):
    """lab → the folder of the test files in its autograder, hidden tests included."""
    folders = {}
    for lab, folder in assigned.items():
        grader, = (folder / "autograder").glob("*.zip")
        folders[lab] = tmp_path_factory.mktemp(f"{lab}_tests")
        with zipfile.ZipFile(grader) as archive:
            archive.extractall(folders[lab])
    return {lab: folder / "tests" for lab, folder in folders.items()}


def grade(folder, lab, tests, monkeypatch, cells):
    """{question: points}: run the cells in this process. As in otter's kernel, a check cell grades its question with all tests."""
    monkeypatch.chdir(folder / "autograder")
    Notebook.init_grading_mode(str(tests))
    namespace = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(cell.source, f"{lab}, {cell.id}", "exec"), namespace)
    return {result.name: result.score for result in Checker.get_results()}


def solution_cells(folder, lab):
    notebook = nbformat.read(folder / "autograder" / f"{lab}.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("lab", LABS)
def test_no_cell_of_the_solution_fails(lab, assigned, tests_of, monkeypatch):
    assert grade(assigned[lab], lab, tests_of[lab], monkeypatch, solution_cells(assigned[lab], lab)) == POINTS[lab]


@pytest.mark.parametrize("lab, mistake", [pytest.param(lab, mistake, id=f"{lab}: {mistake[0]}") for lab in WRONG for mistake in WRONG[lab]])
def test_a_mistake_costs_just_its_points(lab, mistake, assigned, tests_of, monkeypatch):
    _, question, lost, right, wrong = mistake
    cells = [cell for cell in solution_cells(assigned[lab], lab) if not cell.id.endswith(("-picture", "-pairs"))]  # no question needs them
    answer, = (cell for cell in cells if cell.id == f"{question}-solution")
    assert answer.source.count(right) == 1, f"the solution of {question} should say {right!r} once"
    answer.source = answer.source.replace(right, wrong)
    expected = POINTS[lab] | {question: POINTS[lab][question] - lost}
    assert grade(assigned[lab], lab, tests_of[lab], monkeypatch, cells) == expected


# ------------------------------------------------------------------------------------------- what students get

def solutions_and_hidden_tests(lab):
    """Statements between BEGIN and END SOLUTION of a master, and the names and sentences of its hidden tests."""
    solved, hidden = [], []
    for cell in nbformat.read(FOLDER / f"{lab}.ipynb", as_version=4).cells:
        if cell.cell_type == "code" and "# BEGIN SOLUTION" in cell.source:
            inside = False
            for line in map(str.strip, cell.source.splitlines()):
                inside = line == "# BEGIN SOLUTION" or inside and line != "# END SOLUTION"
                solved += [line] if inside and len(line) > 20 and not line.startswith("#") else []
        if cell.cell_type == "code" and cell.source.startswith("# HIDDEN"):
            function, = ast.parse(cell.source).body
            texts = [node.value for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            hidden += [function.name, *(text for text in texts if len(text) > 25)]
    return solved, hidden


@pytest.mark.parametrize("lab", LABS)
def test_student_copies_hold_no_solution_and_no_hidden_test(lab, assigned):
    student = assigned[lab] / "student"
    assert [path.name for path in student.iterdir()] == [f"{lab}.ipynb"]
    notebook = nbformat.read(student / f"{lab}.ipynb", as_version=4)
    given = "\n".join([cell.source for cell in notebook.cells] + list(notebook.metadata["otter"]["tests"].values()))
    solved, hidden = solutions_and_hidden_tests(lab)
    assert len(solved) > 8 and len(hidden) > 8
    assert not set(solved) & {line.strip() for line in given.splitlines()}
    assert not [text for text in hidden if text in given]
    assert "hidden=True" not in given and "SOLUTION" not in given
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_masters_store_no_outputs():
    """Pictures of a master show what students are to find out."""
    for lab in LABS:
        assert not any(cell.get("outputs") for cell in nbformat.read(FOLDER / f"{lab}.ipynb", as_version=4).cells)


# ------------------------------------------------------------------------------------------- questions in words

@pytest.mark.parametrize("lab", LABS)
def test_each_lab_asks_to_derive_to_predict_and_to_interpret(lab):
    """Two points each, with an answer and a rubric that gives 2, 1 or 0 points."""
    found = answers.questions(lab)
    assert sorted(found) == ["w1", "w2", "w3"] and all(question.points == 2 for question in found.values())
    kinds = {re.search(r"\*\*Written \d · (\w+) \(2 points\)\.\*\*", question.text)[1] for question in found.values()}
    assert kinds == {"derive", "predict", "interpret"}
    for question in found.values():
        assert re.match(r"\*\*Answer\.\*\* .*\*\*Rubric\.\*\* 2: .* 1: .* 0: ", question.key, flags=re.DOTALL), question.key


@pytest.mark.parametrize("lab", LABS)
def test_written_answers_reach_the_marking_sheet_whatever_cells_a_student_adds(lab, assigned):
    student = nbformat.read(assigned[lab] / "student" / f"{lab}.ipynb", as_version=4)
    assert answers.answers(student) == {"w1": "", "w2": "", "w3": ""}
    places = [i for i, cell in enumerate(student.cells) if cell.source == answers.EMPTY]
    for number, i in reversed(list(enumerate(places, 1))):
        student.cells[i].source = f"my answer {number}"
        student.cells.insert(i + 1, nbformat.v4.new_markdown_cell("# and more"))
    assert answers.answers(student) == {f"w{n}": f"my answer {n}\n\n# and more" for n in (1, 2, 3)}
    sheet = answers.marking_sheet(lab, {"ada.ipynb": answers.answers(student), "bob.ipynb": {}})
    assert "> my answer 2" in sheet and "> # and more" in sheet and sheet.count("> (no answer)") == 3


@pytest.mark.parametrize("lab", LABS)
def test_student_copies_hold_no_model_answer(lab, assigned):
    given = (assigned[lab] / "student" / f"{lab}.ipynb").read_text(encoding="utf-8")
    assert "Rubric" not in given and "**Answer.**" not in given and given.count(answers.EMPTY) == 3


@pytest.mark.parametrize("lab", LABS)
def test_the_answer_sheet_has_every_question_with_its_solution(lab):
    sheet = answers.answer_sheet(lab)
    assert all(f"name `{name}`" in sheet for name in [*POINTS[lab], "w1", "w2", "w3"])
    solved, hidden = solutions_and_hidden_tests(lab)
    assert all(line in sheet for line in solved) and sheet.count("Hidden test: ") >= 5 and "BEGIN SOLUTION" not in sheet


# ------------------------------------------------------------------------------------------- size, rules, statistics

@pytest.mark.parametrize("lab", LABS)
def test_a_lab_takes_60_to_90_minutes(lab):
    """By the rates of minutes.py; the teacher's page shows the same numbers."""
    found = minutes.work(FOLDER / f"{lab}.ipynb")
    assert 60 <= found.minutes <= 90, found
    assert found.derivations == 1 and found.answers == 2
    row = f"| {found.words:,} | {found.cells} | {found.lines} | {found.minutes:.0f} |"
    assert row in (FOLDER / "README.md").read_text(encoding="utf-8"), f"README.md should say {row} for {lab}: run minutes.py"


def test_minutes_count_what_is_there(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("one two $x+1$\n\n$$\na\nb\n$$"), nbformat.v4.new_code_cell("1 + 1"),
             nbformat.v4.new_code_cell("def f():\n    # BEGIN SOLUTION\n    a = 1\n\n    # a comment\n    return a\n    # END SOLUTION"),
             nbformat.v4.new_code_cell("def test(): ..."), nbformat.v4.new_markdown_cell("**Written 1 · derive (2 points).** Why?")]
    for cell, id in zip(cells, ("text", "look", "q1-solution", "q1-test-1", "w1-text"), strict=True):
        cell["id"] = id
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "lab.ipynb")
    assert minutes.work(tmp_path / "lab.ipynb") == (2 + 3 + 10 + 7, 1, 2, 1, 0)


def test_the_rules_stand_once_and_keep_the_tests_secret():
    notebooks = {lab: nbformat.read(FOLDER / f"{lab}.ipynb", as_version=4) for lab in LABS}
    texts = {lab: "\n".join(cell.source for cell in notebooks[lab].cells if cell.cell_type == "markdown") for lab in LABS}
    assert [lab for lab in LABS if "**How this works.**" in texts[lab]] == LABS[:1]
    assert all("*How this works*" in texts[lab] for lab in LABS[1:])
    assert not [lab for lab in LABS if re.search("standstill|refuses|bar.alpha_t = .bar.alpha_{t-1}", texts[lab])]


def test_quantiles_of_the_labs_are_those_of_student():
    """By the density of Student's t, integrated: 97.5 % of it lie below the quantile, up to half a unit of its last digit."""
    for lab in ("lab4_multistep", "lab5_training"):
        imports, = (cell.source for cell in nbformat.read(FOLDER / f"{lab}.ipynb", as_version=4).cells if cell.id == "imports")
        table = ast.literal_eval(re.search(r"T_975 = (\{.*?\})", imports)[1])
        assert {2, 15} <= set(table)
        for freedom, quantile in table.items():
            below = []
            for end in (quantile - 0.0005, quantile + 0.0005):
                x = torch.linspace(0, end, 20_001, dtype=torch.float64)
                below.append(0.5 + torch.trapezoid(torch.distributions.StudentT(freedom).log_prob(x).exp(), x).item())
            assert below[0] < 0.975 < below[1], (freedom, quantile)
