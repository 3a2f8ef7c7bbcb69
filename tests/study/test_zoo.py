"""The script that makes the zoo, at a size of its own: members differ in their loss alone, and a second start does nothing twice."""
import re
from dataclasses import replace

import pytest
import zoo as script
from zoo import TWINS, Family, build_zoo

from s2dm_mini import checkpoints
from s2dm_mini.checkpoints import load_model
from s2dm_mini.study import tables
from s2dm_mini.study.plan import SETTINGS
from s2dm_mini.study.tables import read_rows
from s2dm_mini.training.config import TrainConfig

TINY = TrainConfig(data="shapes", preset="tiny", tau=1.0, batch=8, images=32, log_every=2)
PLAN = Family(TINY, replace(TINY, images=16), samples=20, steps=2)


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setitem(script.SIZES, "small", {"tiny-shapes": PLAN})
    monkeypatch.setenv("S2DM_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.slow
def test_a_zoo_is_built_once(small, monkeypatch):
    table = small / "table.csv"
    build_zoo("small", small / "out", device="cpu", table=table)
    rows = [row for row in read_rows(table) if row["features"] == "cifar10-classifier"]
    assert [row["checkpoint"].split("/")[-2] for row in rows] == [f"tiny-shapes-{twin}" for twin in TWINS]
    assert [(int(row["skip"]), float(row["tau"])) for row in rows] == [(SETTINGS[twin].skip, SETTINGS[twin].tau) for twin in TWINS]
    assert all(row["images_seen"] == "48" and row["nfe"] == "2" for row in rows) and len({row["network_sha256"] for row in rows}) == 5
    for twin in TWINS:
        assert (small / "out" / f"tiny-shapes-{twin}" / f"tiny-shapes-{twin}.png").exists()
        record = load_model(small / "out" / f"tiny-shapes-{twin}" / "model.safetensors")[1]
        config = {k: v for k, v in record["config"].items() if k not in ("skip", "tau")}
        assert config == {**config, "seed": 0, "images": 16} and record["started_from"]["images_seen"] == 32

    monkeypatch.setattr(script, "evaluate", None)  # would be called in vain
    before = table.read_bytes()
    build_zoo("small", small / "out", device="cpu", table=table)
    assert table.read_bytes() == before


@pytest.mark.slow
def test_members_can_be_chosen_and_shipped(small, zoo, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", small / "data" / "results")
    monkeypatch.setattr(script, "evaluate", lambda *a, **k: [{"fd": 1.0, "features": "any"}])
    build_zoo("small", small / "out", only=("tiny-shapes-s2dm5",), ship=True, device="cpu", table=small / "table.csv")
    assert sorted(checkpoints.zoo()) == ["tiny-shapes-s2dm50", "tiny-shapes-s2dm50-tau0.9"]
    assert checkpoints.zoo()["tiny-shapes-s2dm50-tau0.9"]["record"]["config"]["tau"] == 0.9
    assert sorted(p.name for p in (small / "data" / "pictures").iterdir()) == ["tiny-shapes-s2dm50-tau0.9.png", "tiny-shapes-s2dm50.png"]


def test_with_a_budget_of_minutes_all_twins_see_what_the_first_saw(small, monkeypatch):
    plan = replace(PLAN, tune=replace(TINY, images=None, minutes=0.001, log_every=1), twins=("l0", "s2dm10"))
    monkeypatch.setitem(script.SIZES, "small", {"tiny-shapes": plan})
    monkeypatch.setattr(script, "show", lambda *_: None)
    build_zoo("small", small / "out", device="cpu")
    first, second = (load_model(small / "out" / f"tiny-shapes-{twin}" / "model.safetensors")[1] for twin in ("l0", "s2dm10"))
    assert first["images_seen"] == second["images_seen"] and second["config"]["images"] == first["images_seen"]


def test_bad_choices_are_refused(small):
    with pytest.raises(ValueError, match="size must be one of quick, cpu, full.* not 'huge'"):
        build_zoo("huge", small)
    with pytest.raises(ValueError, match="no member of the size small starts with nano; there are tiny-shapes-l0, tiny-shapes-s2dm2"):
        build_zoo("small", small, only=("nano",))


def test_every_size_trains_the_members_that_it_names():
    for families in script.SIZES.values():
        for family, plan in families.items():
            preset, data, *labels = family.split("-")
            for config in (plan.base, plan.tune):
                assert (config.preset, config.data, config.tau) == (preset, data, 1.0), family
                assert (config.label_dropout < 1) == (labels == ["classes"]), family
            assert set(plan.twins) <= set(TWINS)


def test_the_zoos_page_says_what_was_measured():
    """Each network's row in data/checkpoints/README.md holds the numbers of its row in data/results."""
    page = (checkpoints.ZOO / "README.md").read_text(encoding="utf-8")
    rows = {row["network_sha256"]: row for row in read_rows(tables.RESULTS / "evaluations.csv")
            if (row["sampler"], row["spacing"], row["steps"], row["samples"]) == ("ddim", "quadratic", "20", "1200")}
    for name, entry in checkpoints.zoo().items():
        stated = re.search(rf"\| `{re.escape(name)}` \|.*", page)
        assert stated, f"{name} is shipped, and not on the page"
        images, *_, distance, kid = [cell.strip() for cell in stated.group().strip("|").split("|")][2:]
        assert int(images.replace(",", "")) == checkpoints.images_seen(entry["record"])
        found = rows.get(checkpoints.network_hash(checkpoints.load_pretrained(name)))
        assert (distance, kid) == ((f"{float(found['fd']):.3f}", f"{float(found['kid']):.4f}") if found else ("", ""))
