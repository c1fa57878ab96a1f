"""Encoded bytes to an RGB image, or to the one fault that says why not.

The size is judged from the header, before a pixel is decoded. The format is told by the bytes, never by the file's name.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.color import to_rgb

#: Formats tried, in this order. Fixed here and not left to what is installed: some of Pillow's plugins start other programs.
FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
        PpmImagePlugin.PpmImageFile,
        Jpeg2KImagePlugin.Jpeg2KImageFile,
        AvifImagePlugin.AvifImageFile,
    )
)
#: Their signature is two letters, which any text may start with, so a header that does not follow means "not an image".
_WEAK_SIGNATURES = ("BMP", "PPM")
_SIGNATURE_BYTES = 16
_ORIENTATION_TAG = 0x0112
#: EXIF 2.3, tag 0x0112: what turns the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """Limits in pixels, and whether to turn images upright by their EXIF orientation (off: boxes refer to stored pixels)."""

    max_pixels: int = 100_000_000
    min_side: int = 16
    exif: bool = False

    def __post_init__(self) -> None:
        for name in ("max_pixels", "min_side"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", "Give at least 1.")

    def configuration(self) -> dict[str, object]:
        """JSON-able; everything here that changes the pixels or which images are refused."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """`image` is RGB of `width` x `height`; `format` and `mode` are what the file held (`GIF`, `P`)."""

    image: Image.Image
    width: int
    height: int
    format: str
    mode: str


def decode_image(data: bytes, options: DecodeOptions) -> DecodedImage:
    """Decode the first frame of an image, completely or not at all.

    Raises `SampleFault`: `empty_file`, `not_an_image`, `torn_image`, `too_large`, `too_small`.
    """
    if not data:
        raise SampleFault("empty_file", "the file has no bytes")
    opened, format_name = _open(data)
    _check_size(opened, options)
    mode = opened.mode
    try:
        opened.load()
        _check_size(opened, options)
        upright = _upright(opened) if options.exif else opened
        image = to_rgb(upright)
    except SampleFault:
        raise
    except Image.DecompressionBombError as error:
        raise SampleFault("too_large", _reason(error)) from error
    except MemoryError as error:
        raise SampleFault("too_large", f"no memory for {opened.width} x {opened.height} pixels") from error
    except Exception as error:  # whatever a decoder raises over foreign bytes is a fact about these bytes
        raise SampleFault("torn_image", f"the {format_name} pixels cannot be decoded: {_reason(error)}") from error
    return DecodedImage(image=image, width=image.width, height=image.height, format=format_name, mode=mode)


def _open(data: bytes) -> tuple[Image.Image, str]:
    """The image with its header read, and its format.

    `Image.open` would do, but for its own pixel limit: that is a global, it warns at 89 million pixels, and it refuses twice as
    many whatever the options here allow. Its registry of formats has no limit.
    """
    for name in FORMATS:
        factory, accepts = Image.OPEN[name]
        accepted = accepts(data[:_SIGNATURE_BYTES]) if accepts else True
        if not accepted or isinstance(
            accepted, str
        ):  # a string says that the format is known, but its library is absent
            continue
        try:
            return factory(io.BytesIO(data), ""), name
        except Image.DecompressionBombError as error:
            raise SampleFault("too_large", _reason(error)) from error
        except Exception as error:  # as above
            if name in _WEAK_SIGNATURES:
                continue
            raise SampleFault("torn_image", f"the {name} header cannot be read: {_reason(error)}") from error
    raise SampleFault("not_an_image", f"the bytes ({data[:8]!r} ...) start none of {', '.join(FORMATS)}")


def _check_size(image: Image.Image, options: DecodeOptions) -> None:
    width, height = image.size
    if width * height > options.max_pixels:
        raise SampleFault(
            "too_large", f"{width} x {height} = {width * height:,} pixels, the limit is {options.max_pixels:,}"
        )
    if min(width, height) < options.min_side:
        raise SampleFault("too_small", f"{width} x {height} pixels, the shorter side must have {options.min_side}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # noqa: BLE001 - broken EXIF says nothing about the pixels, which are whole
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
