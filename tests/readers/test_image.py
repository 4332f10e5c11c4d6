import builtins
import gc
import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.readers import read_image
from skmm.readers._image import digest_image, load_image
from skmm.readers._source import digest_bytes
from skmm.readers._text import digest_text

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
WHITE = (255, 255, 255)


def encoded(image, format="PNG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def composited(rgba, background):
    """By the book, in floats."""
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + np.asarray(background) * (1 - alpha)


def assert_image(image, expected, atol=0):
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.c_contiguous
    assert image.flags.writeable
    np.testing.assert_allclose(image.astype(int), expected, atol=atol)


# ---- forms of one image ------------------------------------------------------------------


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(encoded(RGB))
    return path


@pytest.mark.parametrize("spell", [str, Path, np.str_], ids=lambda f: f.__name__)
def test_path(png, spell):
    assert_image(read_image(spell(png)), RGB)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview], ids=lambda f: f.__name__)
def test_bytes(wrap):
    assert_image(read_image(wrap(encoded(RGB))), RGB)


def test_pil_image():
    assert_image(read_image(Image.fromarray(RGB)), RGB)


def test_lazily_opened_pil_image(png):
    with Image.open(png) as image:
        assert_image(read_image(image), RGB)


@pytest.mark.parametrize(
    "array",
    [RGB, np.asfortranarray(RGB), np.repeat(RGB, 2, axis=1)[:, ::2], np.moveaxis(RGB, -1, 0)],
    ids=["C", "F", "strided", "channels first"],
)
def test_array_in_any_layout(array):
    assert_image(read_image(array), RGB)


@pytest.mark.parametrize(
    "array", [GRAY, GRAY[:, :, None], GRAY[None]], ids=["2-D", "last axis 1", "first axis 1"]
)
def test_gray_array(array):
    assert_image(read_image(array), np.stack([GRAY] * 3, axis=-1))


def test_a_last_axis_of_channels_wins_over_a_first():
    # An image 3 pixels high: channels-last is the rule, so the axes are not swapped.
    low = RGB[:3]
    assert_image(read_image(low), low)


def test_objects_with_array_protocol():
    class Foreign:
        def __array__(self, dtype=None, copy=None):
            return RGB

    assert_image(read_image(Foreign()), RGB)
    assert digest_image(Foreign()) == digest_image(RGB)


# ---- depth ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_float_arrays(dtype):
    array = (RGB / 255).astype(dtype)
    assert_image(read_image(array), RGB)


def test_float_array_with_rounding_errors_outside():
    array = np.array([[-1e-6, 1 + 1e-6]], dtype=np.float32)
    assert_image(read_image(array), [[[0] * 3, [255] * 3]])


def test_bool_array():
    assert_image(read_image(np.array([[False, True]])), [[[0] * 3, [255] * 3]])


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_uint16_array_is_scaled_not_clipped(dtype):
    values = np.arange(65536).reshape(256, 256)
    expected = np.stack([np.rint(values / 257)] * 3, axis=-1)
    assert_image(read_image(values.astype(dtype)), expected)


def test_16_bit_png():
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    expected = np.stack([values // 257] * 3, axis=-1)
    assert_image(read_image(encoded(values)), expected)
    assert_image(read_image(Image.open(io.BytesIO(encoded(values)))), expected)


def test_16_bit_png_with_a_transparent_gray():
    values = np.array([[0, 5000, 65535]], dtype=np.uint16)
    data = encoded(values, transparency=5000)
    assert_image(read_image(data, background=(1, 2, 3)), [[[0] * 3, [1, 2, 3], [255] * 3]])


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_pil_modes(mode):
    order = ">u2" if mode == "I;16B" else "<u2"
    values = np.array([[0, 257, 40000], [65535, 514, 128]])
    image = Image.frombytes(mode, (3, 2), values.astype(order).tobytes())
    assert_image(read_image(image), np.stack([np.rint(values / 257)] * 3, axis=-1))


@pytest.mark.parametrize(
    ("mode", "values", "top"),
    [
        ("I", [[0, 100, 255]], 255),
        ("I", [[0, 100, 256]], 65535),
        ("I", [[0, 65535, 30000]], 65535),
        ("F", [[0, 0.25, 1]], 1),
        ("F", [[0, 0.25, 2]], 255),
        ("F", [[0, 100, 255]], 255),
        ("F", [[0, 256, 65535]], 65535),
    ],
)
def test_32_bit_modes_take_the_smallest_scale_that_holds(mode, values, top):
    values = np.array(values)
    image = Image.fromarray(values.astype("int32" if mode == "I" else "float32"))
    assert image.mode == mode
    expected = np.stack([np.rint(values * 255 / top)] * 3, axis=-1)
    assert_image(read_image(image), expected)
    assert_image(read_image(encoded(image, "TIFF")), expected)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0, 65536]], dtype=np.int32),
        np.array([[-1, 5]], dtype=np.int32),
        np.array([[0, -0.1]], dtype=np.float32),
        np.array([[0, np.nan]], dtype=np.float32),
        np.array([[0, np.inf]], dtype=np.float32),
    ],
)
def test_32_bit_modes_without_a_scale_are_refused(array):
    with pytest.raises(MediaDecodeError, match="whose scale is unknown"):
        read_image(encoded(Image.fromarray(array), "TIFF"))


# ---- color and transparency ---------------------------------------------------------------


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 99)])
def test_rgba_is_composited(background):
    rgba = RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    rgba[0, :2, 3] = 0, 255
    expected = composited(rgba, background)
    for cell in (rgba, Image.fromarray(rgba), encoded(rgba)):
        image = read_image(cell, background=background)
        assert_image(image, expected, atol=0.5 + 1e-9)
        assert image[0, 0].tolist() == list(background)
        assert image[0, 1].tolist() == rgba[0, 1, :3].tolist()


def test_the_background_is_white_by_default():
    assert read_image(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("dtype", ["float32", "uint16", "bool"])
def test_alpha_of_other_depths(dtype):
    top = {"float32": 1, "uint16": 65535, "bool": True}[dtype]
    array = np.array([[[top, 0, 0, top], [top, 0, 0, 0]]], dtype=dtype)
    assert_image(read_image(array), [[[255, 0, 0], [255, 255, 255]]])


def test_gray_with_alpha():
    la = np.array([[[100, 255], [100, 0]]], dtype=np.uint8)
    image = Image.merge("LA", [Image.fromarray(la[..., 0]), Image.fromarray(la[..., 1])])
    assert_image(read_image(encoded(image), background=(1, 2, 3)), [[[100] * 3, [1, 2, 3]]])


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_alpha(mode):
    source = Image.new("RGBA", (1, 1), (200, 200, 200, 128))
    if mode == "La":
        source = source.convert("LA")
    expected = composited(np.array([[[200, 200, 200, 128]]]), WHITE)
    assert_image(read_image(source.convert(mode)), expected, atol=2)


def palette_image(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image, {"transparency": transparency}


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"], ids=["index", "table"])
def test_palette_with_transparency(transparency):
    image, options = palette_image(transparency)
    for cell in (encoded(image, **options), encoded(image, "GIF", transparency=1)):
        decoded = read_image(cell, background=(9, 9, 9))
        assert_image(decoded, [[[255, 0, 0], [9, 9, 9], [0, 0, 255]]])


def test_palette_without_transparency():
    image, _ = palette_image(None)
    assert_image(read_image(image), [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])


def test_palette_with_alpha_inside():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 255, 0, 255, 0, 0], "RGBA")
    image.putdata([0, 1])
    assert_image(read_image(image), [[[255, 0, 0], [255, 255, 255]]])


def test_rgb_png_with_a_transparent_color():
    data = encoded(Image.new("RGB", (1, 1), (5, 6, 7)), transparency=(5, 6, 7))
    assert_image(read_image(data, background=(1, 2, 3)), [[[1, 2, 3]]])


@pytest.mark.parametrize(
    ("mode", "color", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("HSV", (0, 0, 99), (99, 99, 99)),
        ("RGBX", (1, 2, 3, 4), (1, 2, 3)),
    ],
)
def test_other_modes(mode, color, rgb):
    assert_image(read_image(Image.new(mode, (2, 2), color)), [[rgb] * 2] * 2)


def test_cmyk_jpeg():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert_image(read_image(data), [[(255, 0, 0)] * 8] * 8, atol=3)


# ---- orientation and frames ----------------------------------------------------------------

# What a viewer does to the stored pixels, from the EXIF standard's table.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation(orientation, format):
    data = encoded(RGB, format, exif=oriented(orientation))
    assert_image(read_image(data), UPRIGHT[orientation](RGB))
    assert_image(read_image(Image.open(io.BytesIO(data))), UPRIGHT[orientation](RGB))


def test_exif_orientation_of_a_jpeg_under_draft():
    smooth = np.zeros((64, 128, 3), dtype=np.uint8)
    smooth[:, :64] = 200
    data = encoded(smooth, "JPEG", exif=oriented(6))
    image = read_image(data, draft=32)
    assert image.shape == (64, 32, 3)
    assert image[0].mean() > 190
    assert image[-1].mean() < 10


def test_exif_orientation_of_16_bits():
    values = np.array([[0, 257], [514, 771], [65535, 0]], dtype=np.uint16)
    data = encoded(values, exif=oriented(8))
    assert read_image(data)[:, :, 0].tolist() == np.rot90(values // 257).tolist()


def test_orientation_set_on_the_pil_image_itself():
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = 6
    assert_image(read_image(image), np.rot90(RGB, -1))
    assert digest_image(image) != digest_image(Image.fromarray(RGB))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_broken_exif_does_not_hide_a_image():
    for rubbish in (b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0"):
        data = encoded(np.zeros((8, 8, 3), np.uint8), "JPEG", exif=rubbish)
        assert_image(read_image(data), np.zeros((8, 8, 3)))


@pytest.mark.parametrize("orientation", [0, 9, "up", b"\6", (1, 2), None])
def test_an_orientation_that_is_none_turns_nothing(orientation):
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = orientation
    assert_image(read_image(image), RGB)
    assert len(digest_image(image)) == 16


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "green", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert_image(read_image(data), np.full((4, 4, 3), (255, 0, 0)))


def test_an_animation_stays_at_the_frame_where_it_was_given():
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        first = digest_image(image)
        image.seek(1)
        assert_image(read_image(image), np.full((4, 4, 3), (0, 0, 255)))
        assert image.tell() == 1
        assert digest_image(image) != first


def test_draft_is_smaller_but_not_below_the_given_side():
    y, x = np.mgrid[:300, :400]
    smooth = np.stack([x * 255 // 400, y * 255 // 300, x * 0], axis=-1).astype(np.uint8)
    data = encoded(smooth, "JPEG", quality=95)
    assert read_image(data).shape == (300, 400, 3)
    assert read_image(data, draft=300).shape == (300, 400, 3)
    assert read_image(data, draft=100).shape == (150, 200, 3)
    assert read_image(data, draft=30).shape == (38, 50, 3)
    halved = smooth.reshape(150, 2, 200, 2, 3).mean(axis=(1, 3))
    assert np.abs(read_image(data, draft=100) - halved).mean() < 2
    assert_image(read_image(encoded(smooth), draft=30), smooth)  # draft has no effect on PNG


@pytest.mark.parametrize("format", ["BMP", "PPM", "TGA", "WEBP", "AVIF", "JPEG", "TIFF", "GIF"])
def test_formats(format):
    if format not in Image.registered_extensions().values() or format not in Image.SAVE:
        pytest.skip(f"this pillow writes no {format}")
    color = np.full((16, 16, 3), (200, 40, 90), dtype=np.uint8)
    assert_image(read_image(encoded(color, format)), color, atol=6)


# ---- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "type NoneType. Give a path, bytes, a PIL image or an array"),
        (3, "type int"),
        (np.float32(3), "type float32"),
        (np.str_, "type type"),
        ({"bytes": b""}, "type dict"),
        (object(), "type object"),
        ([[1, 2]], r"type list. Convert it first: numpy.asarray"),
        (io.BytesIO(b""), "open file .BytesIO.: it can be read only once"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.zeros((4, 8, 9), np.uint8), r"shape \(4, 8, 9\).*numpy.moveaxis\(cell, 0, -1\)"),
        (np.zeros((6, 8, 9, 3), np.uint8), r"shape \(6, 8, 9, 3\).*one image into each cell"),
        (np.zeros((0, 8, 3), np.uint8), r"empty array of shape \(0, 8, 3\)"),
        (np.array(5, np.uint8), r"shape \(\)"),
        (np.zeros((2, 2), int), r"int64.*cell.astype\(numpy.uint8\)"),
        (np.zeros((2, 2), np.int8), "int8"),
        (np.zeros((2, 2), np.uint32), "uint32"),
        (np.zeros((2, 2), complex), "dtype complex128"),
        (np.array([["a", "b"]]), "dtype <U1"),
        (np.array([[None, 1]]), "dtype object"),
        (RGB.astype(float), r"from 0 to 2\d\d. Scale it to \[0, 1\], e.g. by cell / 255"),
        (RGB / 127.5 - 1, r"from -1 to"),
        (np.array([[0, np.nan]]), "from nan to nan"),
    ],
)
def test_cells_that_are_no_image(cell, message):
    with pytest.raises(CellTypeError, match=message):
        read_image(cell)
    with pytest.raises(CellTypeError, match=message):
        load_image(cell)


@pytest.mark.parametrize("draft", [None, 16])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_files(tmp_path, format, draft):
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(noise, format)
    path = tmp_path / f"cut.{format.lower()}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        MediaDecodeError, match=rf"Cannot decode the image '.*cut\.{path.suffix[1:]}'"
    ):
        read_image(path, draft=draft)
    with pytest.raises(MediaDecodeError, match="bytes that begin with"):
        read_image(data[: len(data) // 2], draft=draft)


def test_truncated_pil_image():
    data = encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with Image.open(io.BytesIO(data[: len(data) // 2])) as image:
        with pytest.raises(MediaDecodeError, match="in a PngImageFile object: .*truncated"):
            read_image(image)
        with pytest.raises(MediaDecodeError, match="truncated"):
            digest_image(image)


def test_closed_pil_image(png):
    image = Image.open(png)
    image.close()
    with pytest.raises(MediaDecodeError, match=r"image\.png"):
        read_image(image)


def test_pil_image_without_pixels():
    with pytest.raises(MediaDecodeError, match="no pixels"):
        read_image(Image.new("RGB", (0, 3)))


@pytest.mark.parametrize("data", [b"", b"rubbish", b"<svg></svg>", bytes(1000)])
def test_garbage(data):
    with pytest.raises(MediaDecodeError, match="no format that pillow reads"):
        read_image(data)


@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
def test_damaged_files_are_decoded_or_refused(noise, format):
    data = bytearray(encoded(RGB, format))
    for i, byte in enumerate(noise):
        data[(i * 7919 + byte) % len(data)] ^= byte
    try:
        image = read_image(bytes(data))
    except MediaDecodeError as error:
        assert str(error).startswith("Cannot decode the image in ")
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(MediaDecodeError, match="Cannot read an image from .*it is a directory"):
        read_image(tmp_path)
    with pytest.raises(MediaDecodeError, match="Cannot read an image from .*no such file"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(MediaDecodeError, match="URLs are not fetched"):
        read_image("https://example.org/cat.png")


@pytest.mark.parametrize("factor", [1.5, 2.5], ids=["pillow warns", "pillow raises"])
def test_decompression_bombs(monkeypatch, factor):
    data = encoded(np.zeros((100, 100), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(10_000 / factor))
    with pytest.raises(MediaDecodeError, match="more pixels than PIL.Image.MAX_IMAGE_PIXELS"):
        read_image(data)  # warnings are errors here


def test_a_image_that_pillow_only_warns_of_is_read(monkeypatch):
    data = encoded(np.zeros((100, 100), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7_000)
    with pytest.warns(Image.DecompressionBombWarning):
        assert read_image(data).shape == (100, 100, 3)


def test_a_full_memory_says_nothing_about_the_image(monkeypatch):
    def full(self):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    with pytest.raises(MemoryError):
        read_image(encoded(RGB))


# ---- torch ---------------------------------------------------------------------------------


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(RGB.copy())
    assert_image(read_image(tensor), RGB)
    assert_image(read_image(tensor.permute(2, 0, 1)), RGB)
    assert digest_image(tensor) == digest_image(RGB)
    with pytest.raises(CellTypeError, match=r"Tensor.*cell.detach\(\).cpu\(\).float\(\).numpy"):
        read_image(tensor.float().requires_grad_())
    with pytest.raises(CellTypeError, match=r"Tensor.*cell.detach\(\)"):
        read_image(tensor.bfloat16())


def test_readers_load_neither_torch_nor_pillow():
    code = (
        "import sys; from skmm.readers import read_text;"
        "from skmm.readers._image import digest_image; read_text('a'); digest_image(b'');"
        "print([m for m in ('torch', 'PIL', 'polars') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ---- no open files, no modified cells ------------------------------------------------------


@pytest.mark.slow
def test_no_file_stays_open(png, tmp_path, monkeypatch):
    broken = tmp_path / "broken.png"
    broken.write_bytes(png.read_bytes()[:60])
    opened = []
    real = builtins.open

    def spy(*args, **kwargs):
        opened.append(real(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(builtins, "open", spy)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        load_image(png)
        read_image(png)
        with pytest.raises(MediaDecodeError):
            load_image(broken)
        gc.collect()
    assert len(opened) == 3  # load_image reads once
    assert all(file.closed for file in opened)
    assert not [w for w in caught if w.category is ResourceWarning]


@pytest.mark.parametrize(
    "make",
    [
        lambda: RGB.copy(),
        lambda: RNG.random((4, 4, 4)),
        lambda: np.asfortranarray(RGB),
        lambda: bytearray(encoded(RGB)),
    ],
)
def test_the_cell_is_neither_changed_nor_shared(make):
    cell = make()
    before = bytes(cell)
    for image in (read_image(cell), load_image(cell)[1]):
        image[:] = 0
        assert bytes(cell) == before


def test_a_read_only_array_is_read():
    cell = RGB.copy()
    cell.flags.writeable = False
    assert_image(read_image(cell), RGB)
    digest_image(cell)


def test_a_pil_image_is_not_changed():
    image, _ = palette_image(None)
    image.info["transparency"] = 1
    image.getexif()[0x0112] = 6
    before = image.copy()
    info = dict(image.info)
    load_image(image)[1][:] = 0
    assert image == before
    assert image.info == info
    assert image.getexif()[0x0112] == 6


# ---- digests -------------------------------------------------------------------------------


def test_a_file_has_one_digest_under_every_spelling(png, tmp_path):
    copy = tmp_path / "other name.jpg"
    copy.write_bytes(png.read_bytes())
    data = png.read_bytes()
    cells = [png, str(png), np.str_(png), copy, data, bytearray(data), memoryview(data)]
    assert {digest_image(cell) for cell in cells} == {digest_bytes(data)}


def test_a_file_that_changes_has_another_digest(png):
    before = digest_image(png)
    png.write_bytes(encoded(RGB[::-1]))
    assert digest_image(png) != before


def test_an_undecodable_file_has_a_digest():
    assert len(digest_image(b"rubbish")) == 16


def test_load_image_never_mixes_two_contents(png, monkeypatch):
    # The file changes right after it was read: digest and pixels are both of the old content.
    from skmm.readers import _image

    old = png.read_bytes()
    real = _image.source_bytes

    def then_change(cell, **kwargs):
        data = real(cell, **kwargs)
        png.write_bytes(encoded(RGB[::-1]))
        return data

    monkeypatch.setattr(_image, "source_bytes", then_change)
    digest, image = load_image(png)
    assert digest == digest_bytes(old)
    assert_image(image, RGB)


@pytest.mark.parametrize(
    "cell",
    [RGB, GRAY / 255, Image.fromarray(RGB), encoded(RGB)],
    ids=["uint8", "float", "pil", "bytes"],
)
def test_load_is_digest_and_read(cell):
    digest, image = load_image(cell, background=(1, 2, 3))
    assert digest == digest_image(cell)
    assert len(digest) == 16
    np.testing.assert_array_equal(image, read_image(cell, background=(1, 2, 3)))


def test_no_two_kinds_of_cell_share_a_digest():
    square = np.zeros((2, 2), np.uint8)
    cells = [
        square,
        square.astype(bool),
        square.astype(np.uint16),
        square.reshape(1, 4),
        square.reshape(4, 1),
        square.reshape(2, 2, 1),
        Image.fromarray(square),
        Image.new("1", (2, 2)),
        Image.new("L", (4, 1)),
        Image.new("RGB", (2, 2)),
        Image.new("P", (2, 2)),
        square.tobytes(),
        b"",
    ]
    digests = [digest_image(cell) for cell in cells] + [digest_text("")]
    assert len(set(digests)) == len(digests)


def test_digest_depends_on_the_visible_content_of_a_pil_image():
    plain, _ = palette_image(None)
    clear, _ = palette_image(None)
    clear.info["transparency"] = 1
    table, _ = palette_image(None)
    table.info["transparency"] = b"\xff\x00\xff"
    other, _ = palette_image(None)
    other.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 254])
    turned, _ = palette_image(None)
    turned.getexif()[0x0112] = 3
    images = [plain, clear, table, other, turned]
    assert len({digest_image(image) for image in images}) == len(images)
    assert digest_image(plain) == digest_image(plain.copy())


def test_digest_is_independent_of_other_content_of_a_pil_image(png):
    noted = Image.fromarray(RGB)
    noted.info["comment"] = "seen on a walk"
    with Image.open(png) as opened:
        assert digest_image(noted) == digest_image(Image.fromarray(RGB)) == digest_image(opened)


def test_layout_stays_out_of_the_digest():
    wide = np.repeat(RGB, 2, axis=1)[:, ::2]
    assert digest_image(RGB) == digest_image(np.asfortranarray(RGB)) == digest_image(wide)


images = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16, np.bool_]),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=4),
)


@pytest.mark.slow
@given(images, images)
def test_digest_is_equal_where_arrays_are(a, b):
    equal = a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    assert (digest_image(a) == digest_image(b)) == equal


@pytest.mark.slow
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_array_pil_and_png_show_the_same_image(array):
    expected = np.stack([array] * 3, axis=-1)
    for cell in (array, Image.fromarray(array), encoded(array)):
        np.testing.assert_array_equal(read_image(cell), expected)


def test_digests_never_change():
    # Stores outlive a process, so these digests must not change.
    assert digest_image(b"abc").hex() == "028a8d520c9eb840a4d86e0bf3cbc044"
    assert (
        digest_image(np.arange(6, dtype=np.uint8).reshape(2, 3)).hex()
        == "040359d9d66dd455ec2e65cf0e29b2cd"
    )
    assert (
        digest_image(Image.new("RGB", (2, 1), (1, 2, 3))).hex()
        == "c68f6e8aaff66e4f604f1832a604767a"
    )
