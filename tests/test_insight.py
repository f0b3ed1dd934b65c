"""What a network looks at: Grad-CAM, filters, feature maps and receptive field, as arrays and as pictures."""

import base64
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from s9.data.image_set import ImageFacts
from s9.models.insight import (
    LARGEST,
    feature_maps,
    first_filters,
    grad_cam,
    receptive_field,
    receptive_square,
    shrunk,
)
from s9.models.s9net import S9Net
from s9.pages.run_page import write_run_page
from s9.runs.insight import MISTAKES
from s9.runs.run import train
from s9.tracking import figures
from s9.tracking.folder import RunFolder
from s9.tracking.insight import LOOKS
from tests.conftest import composed
from tests.made_up_run import finished
from tests.test_figures import outside, overlapping, said, texts_of

CLASSES = tuple("abcde")


def facts(size: int = 32) -> ImageFacts:
    return ImageFacts("made up", CLASSES, size, (0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def network(*overrides: str, size: int = 32) -> S9Net:
    torch.manual_seed(0)
    return S9Net(composed("data=digits", *overrides).model, facts(size)).eval()


def images(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["model=strided", "model=dilated", "model=frontier"])
def model(request: pytest.FixtureRequest) -> S9Net:
    return network(request.param)


WANTED = np.array([0, 1, 4])


def test_the_layers_outputs_lead_to_the_networks_logits(model: S9Net) -> None:
    with torch.no_grad():
        logits = model.head(model.layer_outputs(images())[-1].mean(dim=(2, 3)))
        assert torch.equal(logits, model(images()))


def test_grad_cam_is_the_last_maps_weighted_by_the_class(model: S9Net) -> None:
    """Selvaraju et al.: the weight of a map is the mean gradient of the logit, here written out without captum."""
    last = model.layer_outputs(images())[-1].detach().requires_grad_()
    logits = model.head(last.mean(dim=(2, 3)))
    (gradient,) = torch.autograd.grad(logits[range(3), WANTED].sum(), last)
    cams = (gradient.mean(dim=(2, 3), keepdim=True) * last).sum(1, keepdim=True).relu()
    cams = torch.nn.functional.interpolate(cams, size=(32, 32), mode="bilinear")[:, 0].detach()
    most = cams.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    np.testing.assert_allclose(grad_cam(model, images(), WANTED), (cams / most).numpy(), atol=1e-5)


def test_grad_cam_reaches_1_where_anything_speaks_for_the_class(model: S9Net) -> None:
    cams = grad_cam(model, images(), WANTED)
    assert cams.dtype == np.float32 and cams.shape == (3, 32, 32) and cams.min() >= 0
    assert cams[cams.any(axis=(1, 2))].max(axis=(1, 2)).tolist() == [1] * cams.any(axis=(1, 2)).sum() != []


def test_where_nothing_speaks_for_a_class_grad_cam_is_zero() -> None:
    """relu leaves no map negative, and all of the class's weights are negative."""
    model = network("model=teacher_small")
    torch.nn.init.constant_(model.head.weight, -1.0)  # type: ignore[arg-type]
    assert not grad_cam(model, images(1), np.array([2])).any()


def test_without_a_head_grad_cam_is_the_positive_part_of_the_classs_own_map() -> None:
    model = network("model=reference", size=64)
    last = model.layer_outputs(images(size=64))[-1].detach()
    own = last[range(3), WANTED][:, None].relu()
    wanted = torch.nn.functional.interpolate(own, size=(64, 64), mode="bilinear")[:, 0].numpy()
    np.testing.assert_allclose(
        grad_cam(model, images(size=64), WANTED), wanted / wanted.max(axis=(1, 2), keepdims=True).clip(1e-30), atol=1e-5
    )


def test_grad_cam_leaves_no_hook_and_no_gradient(model: S9Net) -> None:
    grad_cam(model, images(), WANTED)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_grad_cam_does_not_need_the_weights_gradients() -> None:
    model, frozen = network("model=strided"), network("model=strided").requires_grad_(False)
    with torch.no_grad():
        assert np.array_equal(grad_cam(frozen, images(), WANTED), grad_cam(model, images(), WANTED))


def test_no_images_have_no_grad_cam(model: S9Net) -> None:
    assert grad_cam(model, images(0), np.zeros(0, np.int64)).shape == (0, 32, 32)


def all_positive(name: str, size: int) -> S9Net:
    """A network through which every path has a positive gradient: its effective field is the theoretical one."""
    model = network(f"model={name}", size=size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    return model


@pytest.mark.parametrize(("name", "size"), [("strided", 128), ("frontier", 96), ("dilated", 32), ("reference", 64)])
def test_the_theoretical_square_is_what_the_middle_position_depends_on(name: str, size: int) -> None:
    first, end = receptive_square(composed(f"model={name}").model, facts(size))
    seen = images(1, size).abs().double().requires_grad_()
    last = all_positive(name, size).double().layer_outputs(seen)[-1]
    (gradient,) = torch.autograd.grad(last[0, :, last.shape[2] // 2, last.shape[3] // 2].sum(), seen)
    rows = torch.nonzero(gradient[0].sum(dim=(0, 2)))
    assert (int(rows.min()), int(rows.max()) + 1) == (max(first, 0), min(end, size))


def test_the_effective_field_is_nothing_outside_the_theoretical_square() -> None:
    model, square = network("model=frontier", size=96), receptive_square(composed("model=frontier").model, facts(96))
    field = receptive_field(model, images(2, 96), square)
    inside = field.effective[square[0] : square[1], square[0] : square[1]]
    assert field.effective.max() == 1 and inside.sum() == field.effective.sum() and 1 < field.side < 67


def test_the_effective_field_does_not_depend_on_how_many_images_fit_into_memory(
    model: S9Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = receptive_field(model, images(), (0, 32))
    monkeypatch.setattr("s9.models.insight.PIXELS", 32 * 32)
    np.testing.assert_allclose(receptive_field(model, images(), (0, 32)).effective, whole.effective, atol=2e-3)


def test_the_strongest_filters_come_first(model: S9Net) -> None:
    found, count = first_filters(model)
    strengths = np.linalg.norm(found.astype(np.float32).reshape(len(found), -1), axis=1)
    assert len(found) == count and (np.diff(strengths) <= 1e-3).all()


def test_the_feature_maps_are_those_of_each_block_with_the_largest_mean() -> None:
    model, config = network("model=frontier"), composed("model=frontier").model
    found = feature_maps(model, config, images(1))
    last = model.layer_outputs(images(1))[-1][0].detach()
    strongest = last[last.mean(dim=(1, 2)).argmax()].numpy()
    assert [one.block for one in found] == list(config.blocks) and found[-1].shape == (160, 8)
    wanted = 255 * (strongest - strongest.min()) / (strongest.max() - strongest.min())
    np.testing.assert_allclose(found[-1].maps[0], wanted, atol=0.6)


def test_what_is_larger_than_can_be_stored_is_averaged_down() -> None:
    large = np.arange(2 * LARGEST, dtype=np.float32)[None, None].repeat(2 * LARGEST, axis=1)
    assert shrunk(large)[0, 0].tolist() == (2 * np.arange(LARGEST) + 0.5).tolist()


# In a run and in its figures


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A short run on digits, whose pictures are not drawn."""
    folder = tmp_path_factory.mktemp("trained")
    quick = ("model=strided", "aug=none", "trainer.epochs=1", "trainer.steps_per_epoch=4", "trainer.batch_size=32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw_all", lambda folder: [])
        train(composed("data=digits", *quick, "wandb=disabled"), folder)
    return RunFolder(folder)


def test_a_run_explains_its_surest_mistakes(trained: RunFolder) -> None:
    stored, predictions = trained.read_arrays(trained.insight), trained.read_predictions()
    worst = predictions["worst"][: len(stored["mistakes"])]
    assert len(worst) == MISTAKES and stored["mistake_names"].tolist() == predictions["names"][worst].tolist()
    assert stored["mistake_classes"][:, 1].tolist() == predictions["class_names"][predictions["labels"][worst]].tolist()


def test_a_file_of_a_run_is_small(trained: RunFolder) -> None:
    assert trained.insight.stat().st_size < 200_000


def test_the_figures_are_drawn_from_the_arrays_alone_and_again_with_the_same_bytes(
    trained: RunFolder, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    shutil.copy(trained.insight, folder.insight)
    drawn = figures.draw_all(folder)
    first = [path.read_bytes() for path in drawn]
    assert [path.stem for path in drawn] == list(LOOKS)
    assert first == [path.read_bytes() for path in figures.draw_all(folder)]


@pytest.mark.parametrize("draw", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("called", ["cat", "golden-crowned flycatcher of the northern kind, number {}", "W" * 60])
def test_no_text_is_over_another_or_outside_whatever_classes_and_files_are_called(
    trained: RunFolder, tmp_path: Path, called: str, draw: Callable[[RunFolder], Figure]
) -> None:
    folder, stored = RunFolder(tmp_path), trained.read_arrays(trained.insight)
    for key in ("mistake_classes", "mistake_names", "image_name", "image_class", "blocks"):
        stored[key] = np.full(stored[key].shape, called)
    folder.write_arrays(folder.insight, **stored)
    texts = texts_of(figure := draw(folder))
    assert (overlapping(texts), outside(figure, texts)) == ([], [])


def test_a_run_without_mistakes_says_so(trained: RunFolder, tmp_path: Path) -> None:
    folder, stored = RunFolder(tmp_path), trained.read_arrays(trained.insight)
    stored |= {key: stored[key][:0] for key in stored if key.startswith("mistake")}
    folder.write_arrays(folder.insight, **stored)
    assert said(LOOKS["gradcam"](folder)) == ["Grad-CAM of mistakes: none, all test images are right"]


def test_grad_cam_says_how_coarse_the_map_is(trained: RunFolder) -> None:
    (line,) = (text for text in said(LOOKS["gradcam"](trained)) if "the last map has" in text)
    assert line.endswith("the last map has 2 x 2 positions, spread over the image's 32 x 32 pixels")


def with_filters(trained: RunFolder, folder: RunFolder, filters: np.ndarray) -> str:
    """The line below the title of these filters' figure."""
    stored = trained.read_arrays(trained.insight) | {"filters": filters, "filter_count": np.array(len(filters))}
    folder.write_arrays(folder.insight, **stored)
    texts = texts_of(figure := LOOKS["filters"](folder))
    assert (overlapping(texts), outside(figure, texts)) == ([], [])
    return texts[1].get_text()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("weak", [0, 1e-6])
def test_filters_without_weight_are_said_to_be_dead(
    trained: RunFolder, tmp_path: Path, weak: float, channels: int
) -> None:
    filters = np.ones((4, channels, 3, 3), np.float16)
    filters[2:] = weak
    assert "all grey: a dead filter (2 here)" in with_filters(trained, RunFolder(tmp_path), filters)


def test_a_dead_filter_is_drawn_grey(trained: RunFolder, tmp_path: Path) -> None:
    """It would be a picture of noise if it were scaled to its own largest weight, too."""
    filters = np.ones((2, 3, 3, 3), np.float16)
    filters[1] = 1e-6
    with_filters(trained, RunFolder(tmp_path), filters)
    (axes,) = LOOKS["filters"](RunFolder(tmp_path)).axes
    assert set(np.asarray(axes.images[0].get_array())[:, -8:].ravel()) == {128}


def test_of_living_filters_nothing_is_said(trained: RunFolder, tmp_path: Path) -> None:
    assert "dead" not in with_filters(trained, RunFolder(tmp_path), np.full((2, 3, 3, 3), 0.1, np.float16))


@pytest.mark.parametrize(("field", "told"), [((-40, 67), True), ((4, 27), False)])
def test_the_image_inside_a_larger_receptive_field_is_named(
    trained: RunFolder, tmp_path: Path, field: tuple[int, int], told: bool
) -> None:
    folder, stored = RunFolder(tmp_path), trained.read_arrays(trained.insight)
    folder.write_arrays(folder.insight, **stored | {"field": np.array(field)})
    texts = texts_of(figure := LOOKS["receptive_field"](folder))
    assert (overlapping(texts), outside(figure, texts)) == ([], [])
    assert any("the small picture is the image" in text.get_text() for text in texts) == told


def test_a_run_that_cannot_be_looked_into_is_done_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_figures: None
) -> None:
    def out_of_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("s9.models.insight.grad_cam", out_of_memory)
    quick = ("aug=none", "trainer.epochs=1", "trainer.steps_per_epoch=1", "trainer.batch_size=8", "wandb=disabled")
    train(composed("data=digits", "model=strided", *quick), tmp_path)
    assert RunFolder(tmp_path).is_done() and not RunFolder(tmp_path).insight.exists()
    assert any("insight.npz cannot be written (out of memory" in line for line in caplog.messages)


# In the page


def test_the_page_shows_the_pictures(trained: RunFolder, tmp_path: Path) -> None:
    folder = finished(tmp_path)
    shutil.copy(trained.insight, folder.insight)
    figures.draw_all(folder)
    page = write_run_page(folder).read_text()
    sources = re.findall(r'<img class="look" src="data:image/png;base64,([^"]*)"', page)
    drawn = {(folder.figures / f"{name}.png").read_bytes() for name in LOOKS}
    assert {base64.b64decode(source) for source in sources} == drawn and len(drawn) == 4


def test_the_page_says_how_pictures_are_drawn_that_are_not(trained: RunFolder, tmp_path: Path) -> None:
    folder = finished(tmp_path)
    shutil.copy(trained.insight, folder.insight)
    assert "Not drawn yet: Grad-CAM of mistakes, Receptive field" in write_run_page(folder).read_text()


def test_the_page_of_a_range_test_says_why_it_has_no_pictures(tmp_path: Path) -> None:
    page = write_run_page(finished(tmp_path, None, "experiment=lr_range")).read_text()
    assert "A range test is not looked into" in page and "There is no insight.npz" not in page


def test_the_page_of_an_older_run_says_what_it_lacks(tmp_path: Path) -> None:
    assert "There is no insight.npz" in write_run_page(finished(tmp_path)).read_text()
