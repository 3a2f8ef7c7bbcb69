"""Strips and planes: what a setting shows is what the library samples, previews lead to it, and it is kept for the next time."""
import io
import json
import re
import struct
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from shipping import add_to_zoo

from s2dm_mini import PRESETS, NoiseSchedule, Shrunk, UNet, checkpoints, sample, shapes, shrinkage
from s2dm_mini.checkpoints import CheckpointError, save_model
from s2dm_mini.data import to_pixels, to_unit_range
from s2dm_mini.data.points import RING_STD, ring_means
from s2dm_mini.denoisers import MixtureDenoiser
from s2dm_mini.explorer import strips as s
from s2dm_mini.explorer.ends import UPLOAD_BYTES, latents, upload
from s2dm_mini.explorer.pictures import code, difference, draw, factor, gain_of, lines, row_png, sizes, spread_of, toy
from s2dm_mini.explorer.plane import SKIPS, TAUS, nearest_cell, plane
from s2dm_mini.explorer.setting import Setting, Trained, families, from_query, nearest, to_query
from s2dm_mini.latents import REFINEMENTS, interpolate, invert
from s2dm_mini.support.machine import best_device

SCHEDULE = NoiseSchedule.linear()
SMALL = Setting(family="tiny, shapes", frames=3, steps=3)


@pytest.fixture(autouse=True)
def networks(zoo, tmp_path):
    """A zoo of three random networks: L_0, S²-DM^10 and S²-DM^50."""
    s.forget()
    for name, skip, tau in (("b-l0", 9, 1.0), ("a-s2dm10", 9, 0.99), ("c-s2dm50", 49, 0.99)):
        torch.manual_seed(skip + int(100 * tau))
        network = UNet(PRESETS["tiny"])
        torch.nn.init.normal_(network.conv_out.weight, std=0.05)
        config = {"preset": "tiny", "data": "shapes", "skip": skip, "tau": tau}
        save_model(tmp_path / "x.safetensors", network, {"config": config})
        add_to_zoo(tmp_path / "x.safetensors", name)
    yield
    s.forget()


def shape_png(seed: int) -> bytes:
    """A scene of shapes as an end."""
    return row_png(shapes(1, 32, seed=seed).pixels, 1)


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def noises(first: int, second: int, frames: int) -> torch.Tensor:
    a, b = (torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (first, second))
    return interpolate(a, b, frames)


@pytest.mark.parametrize("change", [{}, {"skip": 49, "tau": 0.9}, {"sampler": "dpm-solver++", "spacing": "uniform"},
                                    {"frames": 5, "second": 8}])
def test_the_rows_are_what_the_library_samples(change):
    setting = replace(SMALL, **change)
    *_, view = s.views(setting)
    l0 = checkpoints.load_pretrained("b-l0")
    x_T = noises(setting.first, setting.second, setting.frames)
    how = (setting.sampler, setting.steps, setting.spacing)
    assert torch.equal(view.l0.pixels, to_pixels(sample(l0, x_T, SCHEDULE, *how)))
    shrunk = Shrunk(l0, shrinkage(SCHEDULE, setting.skip, setting.tau))
    assert torch.equal(view.s2dm.pixels, to_pixels(sample(shrunk, x_T, SCHEDULE, *how)))
    assert view.slower.done


def test_previews_lead_to_the_strip_and_a_second_time_it_is_there_at_once():
    first = list(s.views(SMALL))
    assert [view.slower.step for view in first] == [1, 2, 3] and [view.slower.done for view in first] == [False, False, True]
    again = list(s.views(SMALL))
    assert len(again) == 1 and again[0].l0 is first[-1].l0 and again[0].s2dm is first[-1].s2dm


def test_moving_skip_leaves_the_l0_row_as_it_is():
    *_, before = s.views(SMALL)
    assert all(view.l0 is before.l0 for view in s.views(replace(SMALL, skip=77)))


def test_rows_from_the_same_noises_share_their_first_evaluation(monkeypatch):
    """What L_0 predicts from x_T does not depend on skip and τ: it is asked once for both rows, and for all strips that follow."""
    asked = []

    def counted(name):
        return lambda x, t: asked.append(int(t[0])) or checkpoints.load_pretrained(name)(x, t)

    with monkeypatch.context() as patch:
        patch.setattr(s, "network", counted)
        *_, both = s.views(SMALL)
        t = [int(time) for time in both.l0.times]
        assert asked == [t[0], t[1], t[1], t[2], t[2]]
        asked.clear()
        *_, shared = s.views(replace(SMALL, skip=77))
        assert asked == t[1:]
    s.forget()
    *_, alone = s.views(replace(SMALL, skip=77))
    assert torch.equal(shared.s2dm.pixels, alone.s2dm.pixels) and shared.s2dm.eps_rms == alone.s2dm.eps_rms


def test_a_run_given_up_halfway_leaves_nothing_behind():
    run = s.views(SMALL)
    next(run)
    run.close()
    assert len(list(s.views(SMALL))) == 3


def test_kept_rows_and_maps_stay_within_a_number_of_bytes(monkeypatch):
    *_, last = s.views(SMALL)
    one = last.l0.bytes  # x_T to x_0, (steps + 1) times 3 images, and the first prediction in float32
    assert one == (4 + 4) * 3 * 3 * 16 * 16
    monkeypatch.setattr(s, "KEPT_BYTES", 4 * one)
    for skip in range(1, 9):
        list(s.views(replace(SMALL, skip=skip)))
    assert len(s._finished.rows) == 4 and s._finished.bytes == 4 * one
    assert len(list(s.views(replace(SMALL, skip=8)))) == 1, "the latest must be kept"
    assert len(list(s.views(replace(SMALL, skip=1)))) == 3, "the oldest must have gone"
    list(plane(SMALL))
    assert len(s._finished.rows) == 1, "a map counts with its own size"


def test_explorers_that_draw_at_once_share_what_is_kept(monkeypatch):
    """Four threads, a memory of two rows: without a lock one of them soon takes away what another counts."""
    *_, last = s.views(SMALL)
    monkeypatch.setattr(s, "KEPT_BYTES", 2 * last.l0.bytes)
    errors = []

    def draw_many():
        try:
            for i in range(4_000):
                s._finished.put(("row", i % 5), last.l0)
                s._finished.get(("row", (i + 1) % 5))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=draw_many) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not errors and s._finished.bytes == sum(row.bytes for row in s._finished.rows.values()) <= s.KEPT_BYTES


def test_random_samplers_repeat_themselves_and_share_their_noise_between_rows():
    setting = replace(SMALL, eta=1.0, tau=1.0)
    *_, view = s.views(setting)
    assert torch.equal(view.l0.pixels, view.s2dm.pixels), "at τ = 1 both rows must be one"
    s.forget()
    *_, again = s.views(setting)
    assert torch.equal(view.l0.pixels, again.l0.pixels)


def test_pictures_as_ends_are_inverted_on_the_same_grid():
    pixels = shapes(2, 16, seed=4).pixels
    setting = replace(SMALL, first=row_png(pixels[:1], 1), second=row_png(pixels[1:], 1))
    x_T = [invert(checkpoints.load_pretrained("b-l0"), to_unit_range(p[None]), SCHEDULE, 3, "quadratic", REFINEMENTS)[0] for p in pixels]
    torch.testing.assert_close(latents(setting).cpu(), interpolate(*x_T, 3), rtol=0, atol=0 if best_device() == "cpu" else 0.02)


@pytest.mark.parametrize(("skip", "tau", "name"), [(9, 1.0, "b-l0"), (80, 1.0, "b-l0"), (9, 0.99, "a-s2dm10"), (12, 0.99, "a-s2dm10"),
                                                  (60, 0.99, "c-s2dm50"), (9, 0.9, "c-s2dm50"), (1, 0.999, "b-l0")])
def test_the_nearest_network_is_the_one_whose_shrinkage_is(skip, tau, name):
    assert nearest(replace(SMALL, skip=skip, tau=tau)).name == name
    *_, view = s.views(replace(SMALL, skip=skip, tau=tau, how="trained"))
    assert name == view.drawn_by.name and (view.drawn_by.skip, view.drawn_by.tau) == (nearest(view.setting).skip, nearest(view.setting).tau)
    expected = to_pixels(sample(checkpoints.load_pretrained(name), noises(0, 1, 3), SCHEDULE, "ddim", 3, "quadratic"))
    assert torch.equal(view.s2dm.pixels, expected)


def test_the_plane_holds_the_closed_form_of_every_cell():
    *_, view = plane(SMALL)
    l0, x_T = checkpoints.load_pretrained("b-l0"), noises(0, 1, 3)[:1]
    for i in (0, 10, 24, 48):
        row, column = divmod(i, len(SKIPS))
        shrunk = Shrunk(l0, shrinkage(SCHEDULE, SKIPS[column], TAUS[row]))
        expected = to_pixels(sample(shrunk, x_T, SCHEDULE, "ddim", 3, "quadratic"))[0]
        assert (view.pixels[i].int() - expected.int()).abs().max() <= 1  # other sums in a batch of other size
    assert len(list(plane(replace(SMALL, skip=50)))) == 1, "the plane does not depend on skip and is kept"
    *_, other = plane(SMALL, 2)
    assert torch.equal(other.pixels[0], list(s.views(SMALL))[-1].l0.pixels[2]), "its first row, τ = 1, is L_0"
    for (skip, tau), place in {(9, 0.99): (2, 2), (99, 0.5): (6, 6), (1, 1.0): (0, 0), (40, 0.96): (3, 4)}.items():
        assert nearest_cell(replace(SMALL, skip=skip, tau=tau)) == place


def test_epsilon_norms_are_those_of_the_answers():
    *_, view = s.views(SMALL)
    l0, x_T = checkpoints.load_pretrained("b-l0"), noises(0, 1, 3)
    t = SCHEDULE.timesteps(3, "quadratic")
    assert view.l0.times == tuple(t.tolist())
    with torch.inference_mode():
        eps = l0(x_T, t[:1].expand(3))
    assert view.l0.eps_rms[0] == pytest.approx(eps.pow(2).mean().sqrt().item())
    factor = shrinkage(SCHEDULE, 49, 0.99)[t[0]].item()
    assert view.s2dm.eps_rms[0] == pytest.approx(view.l0.eps_rms[0] * factor, rel=1e-6)


def test_a_sampler_that_diverges_is_reported_in_a_sentence():
    *_, view = s.views(replace(SMALL, skip=9))
    tame = replace(view, l0=replace(view.l0, largest=1.2), s2dm=replace(view.s2dm, largest=1.3))
    assert s.complaint(tame) == ""
    wild = replace(tame, s2dm=replace(view.s2dm, largest=57.0))
    said = s.complaint(wild)
    assert "S²-DM predicts so little of the noise" in said and "values reach 57" in said and "diverged" not in said
    assert "steps diverged: values reach 57" in s.complaint(replace(wild, l0=wild.s2dm))


# ------------------------------------------------------------------------------------------------ settings and ends

@pytest.mark.parametrize(("change", "words"), [({"frames": 2}, r"3\.\.12, not 2"), ({"skip": 100}, r"1\.\.99"),
                                              ({"tau": 0.4}, r"\[0.5, 1\], not 0.4"),
                                              ({"way": "arc"}, "slerp, lerp"), ({"first": -1}, "a seed"), ({"second": "cat"}, "a picture"),
                                              ({"sampler": "euler"}, "dpm-solver"), ({"eta": 2.0}, "eta")])
def test_settings_out_of_range_are_refused_by_name(change, words):
    with pytest.raises(ValueError, match=words):
        Setting(**change)


@pytest.mark.parametrize("setting", [Setting(), SMALL, Setting(skip=9, tau=0.97, how="trained", eta=0.35, first=7)])
def test_an_address_holds_the_setting(setting):
    assert Setting(**from_query(to_query(setting))) == setting


def test_an_address_with_other_words_or_no_number(monkeypatch):
    assert from_query("token=abc&skip=9&tau=0.5") == {"skip": 9, "tau": 0.5} and from_query("") == {}
    with pytest.raises(ValueError, match="'skip=nine', where a number was expected"):
        from_query("skip=nine")
    assert to_query(replace(SMALL, first=shape_png(1))) == to_query(SMALL), "a picture is too long for an address"


def test_eta_is_ignored_by_samplers_without_it():
    assert Setting(sampler="plms", eta=0.5).eta == 0 and Setting(eta=0.5).eta == 0.5


def test_nfe_counts_what_the_network_is_asked():
    for sampler in ("ddim", "f-pndm", "s-pndm"):
        setting = replace(SMALL, steps=5, sampler=sampler, spacing="uniform")
        *_, view = s.views(setting)
        assert len(view.l0.times) == setting.evaluations


@pytest.mark.parametrize(("name", "content", "words"), [("a.png", b"no picture", "a.png is no picture"),
                                                       ("b.png", bytes(UPLOAD_BYTES + 1), "8 MB"),
                                                       ("c.png", b"\x89PNG\r\n\x1a\n" + bytes(40), "c.png is no picture")])
def test_uploads_that_cannot_be_used_are_refused_in_a_sentence(name, content, words):
    with pytest.raises(ValueError, match=words):
        upload(name, content)


@pytest.mark.parametrize("side", [7_000, 14_000])  # above this package's limit; above Pillow's
def test_an_upload_with_too_many_pixels_is_refused_before_it_is_unpacked(side):
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    with pytest.raises(ValueError, match="huge.png has more than 40,000,000 pixels"):
        upload("huge.png", file.getvalue())


def encoded_as(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_wide_greys_are_scaled_to_8_bits():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    cases = {"PNG": Image.fromarray(ramp.astype(np.uint16)), "TIFF": Image.fromarray(ramp.astype(np.float32)),
             "PPM": Image.fromarray(ramp.astype(np.int32))}
    for kind, picture in cases.items():
        pixels = opened(upload("ramp", encoded_as(picture, kind))).astype(float)
        assert pixels.mean() == pytest.approx(127.5, abs=1) and pixels.min() < 6 and pixels.max() > 249, kind


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(mode):
    hidden = Image.new("RGBA", (9, 9), (0, 255, 0, 0))
    hidden = hidden.convert("RGB").quantize(4) if mode == "P" else hidden.convert(mode)
    options = {"transparency": hidden.getpixel((0, 0))} if mode == "P" else {}
    assert opened(upload("hidden.png", encoded_as(hidden, "PNG", **options))).min() == 255


def test_only_the_orientation_of_a_photographs_exif_is_read():
    """It also holds a ratio with a denominator that Pillow cannot write back."""
    exif = (b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHHHHIII", 2, 0x112, 3, 1, 6, 0, 0x11A, 10, 1, 38, 0) + struct.pack("<ii", -1, 0))
    left = Image.new("RGB", (32, 32))
    left.paste((255, 255, 255), (0, 0, 16, 32))
    turned = opened(upload("photo.jpg", encoded_as(left, "JPEG", exif=exif, quality=95))).astype(float)
    assert turned[:12].mean() > 240 and turned[20:].mean() < 15  # its left half is on top


@pytest.mark.parametrize("error", [ValueError("buffer"), NotImplementedError("layers"), struct.error("format"), IndexError("palette")])
def test_whatever_a_decoder_raises_is_a_sentence(error, monkeypatch):
    def failing(*_):
        raise error

    monkeypatch.setattr(Image.Image, "convert", failing)
    with pytest.raises(ValueError, match="odd.png is no picture that can be read"):
        upload("odd.png", shape_png(0))


def test_an_upload_is_cut_to_the_square_in_its_middle():
    picture = Image.new("RGB", (300, 100), "blue")
    picture.paste("red", (100, 0, 200, 100))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    cut = opened(upload("wide.jpg", file.getvalue()))
    assert cut.shape == (32, 32, 3) and (cut[..., 0] > 200).all() and (cut[..., 2] < 60).all()


# ---------------------------------------------------------------------------------------------- networks that fail

def test_a_damaged_or_missing_network_is_a_sentence_and_mending_it_is_enough():
    path = checkpoints.ZOO / "c-s2dm50.safetensors"
    whole = path.read_bytes()
    trained = replace(SMALL, skip=49, how="trained")
    path.write_bytes(whole[:-7])
    with pytest.raises(CheckpointError, match="not the file that was shipped"):
        list(s.views(trained))
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        list(s.views(trained))
    path.write_bytes(whole)
    assert list(s.views(trained))[-1].slower.done


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '{"a": {"unet": {}, "record": {}}}', "[]"])
def test_a_damaged_manifest_is_a_sentence(text):
    (checkpoints.ZOO / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="manifest"):
        families()


def test_families_need_an_l0_network_which_comes_first():
    assert [network.name for network in families()["tiny, shapes"]] == ["b-l0", "a-s2dm10", "c-s2dm50"]
    manifest = json.loads((checkpoints.ZOO / "manifest.json").read_text(encoding="utf-8"))
    del manifest["b-l0"]
    (checkpoints.ZOO / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert families() == {}
    with pytest.raises(CheckpointError, match="Known: none"):
        list(s.views(SMALL))


# -------------------------------------------------------------------------------------------------------- pictures

def test_the_picture_holds_every_pixel_of_the_rows():
    *_, view = s.views(SMALL)
    picture, scale, gap = opened(draw(view)), 6, 4  # 96 dots an image at most
    for pixels in (view.l0.pixels, view.s2dm.pixels):
        row = pixels[:, :, 8].permute(0, 2, 1).numpy()  # the middle line of each image, (3, 16, 3)
        line = np.concatenate([np.concatenate([np.repeat(one, scale, axis=0), np.full((gap, 3), 255, np.uint8)]) for one in row])
        places = [np.lib.stride_tricks.sliding_window_view(one, line.shape)[:, 0] for one in picture]
        assert any((windows == line).all(axis=(1, 2)).any() for windows in places)


def test_pictures_of_different_settings_differ_in_their_words():
    *_, view = s.views(SMALL)
    for change in ({"first": 3}, {"steps": 4}, {"sampler": "plms"}, {"way": "lerp"}, {"how": "trained"}):
        assert draw(replace(view, setting=replace(SMALL, **change))) != draw(view), change
    for change in ({"skip": 10}, {"tau": 0.5}):
        assert draw(replace(view, drawn_by=replace(view.drawn_by, **change))) != draw(view), "the words are of what drew"


def test_a_row_has_one_dot_for_each_pixel():
    *_, view = s.views(SMALL)
    assert (opened(row_png(view.l0.pixels, 3)) == np.concatenate([*view.l0.pixels.permute(0, 2, 3, 1).numpy()], axis=1)).all()


def grey(level: int) -> torch.Tensor:
    return torch.full((3, 3, 16, 16), level, dtype=torch.uint8)


@pytest.mark.parametrize(("change", "gain", "words"), [(0, 64, "too little"), (1, 32, "too little"), (5, 8, "a little grain"),
                                                       (9, 4, "clearly grainy"), (50, 1, "more noise than picture")])
def test_the_sentence_and_the_gain_follow_from_the_mean_change(change, gain, words):
    *_, view = s.views(SMALL)
    view = replace(view, l0=replace(view.l0, pixels=grey(100)), s2dm=replace(view.s2dm, pixels=grey(100 + change)))
    assert view.change == change and gain_of(view) == gain
    assert words in s.verdict(view) and f"{change}.0 of 255" in s.verdict(view)


def test_the_sentence_of_tau_1_and_of_a_trained_network():
    *_, view = s.views(replace(SMALL, tau=1.0))
    assert s.verdict(view) == "τ = 1 is L₀ itself: nothing changes."
    *_, view = s.views(replace(SMALL, skip=99, tau=0.5, how="trained"))
    assert s.verdict(view).endswith("Drawn by c-s2dm50, skip 49, τ 0.99.")


def test_difference_is_white_for_none_blue_for_darker_and_orange_for_brighter():
    grey = torch.full((1, 3, 1, 3), 100, dtype=torch.uint8)
    other = torch.tensor([100, 90, 120], dtype=torch.uint8).expand(1, 3, 1, 3)
    none, darker, brighter = difference(grey, other, 8)[0, :, 0].T.tolist()
    assert none == [255, 255, 255]
    share = 80 / 255  # of the way from white to blue, (0, 114, 178)
    assert darker == pytest.approx([255 - 255 * share, 255 - 141 * share, 255 - 77 * share], abs=1)
    share = 160 / 255  # to vermilion, (213, 94, 0)
    assert brighter == pytest.approx([255 - 42 * share, 255 - 161 * share, 255 - 255 * share], abs=1)


def points(svg: str) -> list[np.ndarray]:
    """The points of all lines of a drawing."""
    return [np.array([place.split(",") for place in line.split()], dtype=float) for line in re.findall(r'<polyline points="([^"]*)"', svg)]


def test_lines_are_drawn_to_scale():
    first, second = points(lines("title", "x", {"L₀": ([0, 10], [1.0, 1.0]), "S²-DM": ([0, 5, 10], [0.0, 0.5, 1.0])}))
    assert first.tolist() == [[34, 24], [234, 24]] and second.tolist() == [[34, 98], [134, 61], [234, 24]]


def test_the_factor_is_that_of_what_drew():
    line = points(factor(Trained("x", 49, 0.9, 16)))[1]
    expected = shrinkage(SCHEDULE, 49, 0.9)[::27].numpy()
    assert np.allclose((98 - line[:, 1]) / 74, (expected - expected.min()) / (1 - expected.min()), atol=1e-3)


def test_all_drawings_have_names_for_those_who_cannot_see_them():
    *_, view = s.views(SMALL)
    for svg in (factor(view.drawn_by), sizes(view), toy(SMALL, view.drawn_by)):
        assert re.match(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', svg) and svg.count("<svg") == svg.count("</svg>")
    assert "nan" not in sizes(view)


def test_the_toy_is_sampled_by_formula_with_and_without_the_factor():
    """At τ = 1 both samples are one; below it the spread about the centres follows from the exact prediction times s_t."""
    l0, same = re.search(r"L₀ ([\d.]+), S²-DM ([\d.]+)", toy(SMALL, Trained("x", 49, 1.0, 16))).groups()
    assert l0 == same
    with warnings.catch_warnings(action="error"):  # it would stand in the notebook's cell
        toy(replace(SMALL, steps=100), Trained("x", 49, 1.0, 16))
    by = Trained("x", 49, 0.9, 16)
    exact = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE)
    x_T = torch.randn(80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = sample(Shrunk(exact, shrinkage(SCHEDULE, 49, 0.9)), x_T, SCHEDULE, "ddim", 3, "quadratic")
    assert f"S²-DM {spread_of(x):.3f}" in toy(SMALL, by)
    assert spread_of(ring_means()) == 0 and spread_of(ring_means() * 1.1) == pytest.approx(0.1 / 2**0.5)


@pytest.mark.parametrize("change", [{}, {"skip": 30, "tau": 0.75, "sampler": "plms"}, {"second": shape_png(5), "way": "lerp"}])
def test_the_code_opens_the_explorer_on_the_same_setting(change):
    setting = replace(SMALL, **change)
    cell = code(setting)
    scope = {}
    exec(cell.replace("from s2dm_mini import explore", "explore = dict").replace("explore(skip", "found = explore(skip"), scope)
    assert Setting(**scope["found"]) == setting and "tau=" in cell
