"""One sample as a picture: its boxes with tags and attributes, its captions with their phrases.

The picture is what the data set holds: boxes and words come from the shards, only the pixels come from the source. Where the
source is gone, boxes are drawn on gray.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mvptr_data.dataset.fields import FIELDS, OK, Field, stem
from mvptr_data.dataset.index import IndexRow, load_index
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.dataset.plan import load_plan, locate, read_keys, ref_of
from mvptr_data.dataset.records import Caption, RegionFacts, decode_array, decode_regions, decode_text
from mvptr_data.dataset.shards import read_rows
from mvptr_data.errors import DamagedFileError, InputError, SampleFault
from mvptr_data.sources.decoding import DecodeOptions, decode_image
from mvptr_data.sources.images import read_image_bytes
from mvptr_data.storage import Store

#: Pixels: the picture's longer side, the width of the text beside it, the margin around both.
PICTURE, TEXT_WIDTH, MARGIN = 900, 620, 24
INK, FAINT, PAPER, CHIP = (28, 30, 34), (110, 114, 122), (255, 255, 255), (233, 240, 252)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSample:
    """What the data set holds under a key. `fates` says, by field, `ok` or the fault; parts of faulty fields are None."""

    key: str
    shard: int
    position: int
    fates: dict[str, str]
    image: Image.Image | None
    boxes: Any
    regions: RegionFacts | None
    captions: tuple[Caption, ...]


def load_sample(out: str, key: str) -> StoredSample:
    """Read one key of the published data set `out`. Raises `InputError` for a key that it does not have."""
    store = Store.at(out)
    manifest, plan = load_manifest(store), load_plan(store)
    plan = plan.until(manifest["shards"]) or plan  # images added since are not published yet
    index = load_index(store, manifest)
    found = list(locate(store, plan, key))
    if not found:
        raise InputError(
            f"{store.root} has no key {key!r}", f"Keys look like {_example_key(store)!r}; the plan has them all."
        )
    shard, planned = next(((shard, row) for shard, row in found if row["fault"] is None), found[0])
    position = planned["position"]
    fates: dict[str, str] = {}
    members: dict[str, bytes] = {}
    for name in manifest["fields"]:
        stored = index.of(name, shard)
        row = _row(store, stored, name, shard, position)
        fates[name] = OK if row["status"] == OK else f"{row['error_class']}: {row['message']}"
        if stored is not None and row["status"] == OK:
            members |= _members(store, FIELDS[name], stored.file, row)
    where = f"sample {key!r}"
    image = None
    decode = manifest["fields"]["regions"]["configuration"].get("decode")
    if decode is not None:  # else the regions were imported, and nobody has the image
        try:
            image = decode_image(read_image_bytes(ref_of(planned)), DecodeOptions(**decode)).image
        except SampleFault as fault:
            fates["source"] = str(fault)
    return StoredSample(
        key=key,
        shard=shard,
        position=position,
        fates=fates,
        image=image,
        boxes=decode_array(members["boxes.npy"], f"boxes of {where}") if "boxes.npy" in members else None,
        regions=decode_regions(members["regions.json"], f"regions.json of {where}")
        if "regions.json" in members
        else None,
        captions=decode_text(members["text.json"], f"text.json of {where}")[1] if "text.json" in members else (),
    )


def _row(store: Store, of: IndexRow | None, field: str, shard: int, position: int) -> dict[str, Any]:
    """An input's row in a field. Raises `DamagedFileError` where the shard does not have it."""
    rows = read_rows(store, of.rows_file) if of is not None and store.exists(of.rows_file) else []
    if position >= len(rows):
        where = f"shard {shard} of {field} in {store.root}"
        raise DamagedFileError(f"{where} has no row {position}", "Run `mvptr-data verify`.")
    return rows[position]


def _example_key(store: Store) -> str:
    return next(iter(read_keys(store, 0)), "")


def _members(store: Store, field: Field, tar: str, row: dict[str, Any]) -> dict[str, bytes]:
    """A sample's members. Raises `DamagedFileError` where the tar is missing."""
    members = {}
    try:
        opened = store.open(tar)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{store.path(tar)} is missing", "Run `mvptr-data verify`.") from error
    with opened as file:
        for member in field.members:
            file.seek(row[f"{stem(member)}_offset"])
            members[member] = file.read(row[f"{stem(member)}_size"])
    return members


def draw_sample(sample: StoredSample, *, most_regions: int = 20) -> Image.Image:
    """The sample as an RGB picture: the `most_regions` best regions on the left, the captions on the right."""
    picture = _draw_regions(sample, most_regions)
    panel = _draw_text(sample, most_regions)
    height = max(picture.height, panel.height) + 2 * MARGIN
    sheet = Image.new("RGB", (picture.width + panel.width + 3 * MARGIN, height), PAPER)
    sheet.paste(picture, (MARGIN, MARGIN))
    sheet.paste(panel, (picture.width + 2 * MARGIN, MARGIN))
    return sheet


def _draw_regions(sample: StoredSample, most: int) -> Image.Image:
    size = _size(sample)
    scale = PICTURE / max(size)
    shown = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    source = sample.image or Image.new("RGB", size, (200, 200, 200))
    picture = source.resize(shown, Image.Resampling.LANCZOS)
    if sample.regions is None:
        return picture
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    # The best region is drawn last, on top; so are the labels, which would else be crossed by other boxes.
    order = range(min(most, len(sample.boxes)) - 1, -1, -1)
    # Boxes of imported features may be 0..1, where the image's size is unknown.
    scales = (scale, scale) if sample.regions.width else shown
    boxes = [[float(v) * by for v, by in zip(sample.boxes[number], 2 * scales, strict=True)] for number in order]
    for number, box in zip(order, boxes, strict=True):
        draw.rectangle(box, outline=_color(number), width=3)
    taken: list[tuple[float, float, float, float]] = []
    for number, box in reversed(list(zip(order, boxes, strict=True))):
        names = " ".join([*reversed(sample.regions.attributes[number][:2]), sample.regions.tags[number]])
        label = _place(draw, f"{names} {sample.regions.scores[number]:.2f}", box, picture.size, font, taken)
        draw.rectangle(label, fill=_color(number))
        draw.text((label[0] + 4, label[1] + 2), f"{names} {sample.regions.scores[number]:.2f}", font=font, fill=PAPER)
    return picture


def _place(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: list[float],
    size: tuple[int, int],
    font: Any,
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """A rectangle for a label: at its box's upper left corner, moved down past labels that are there already."""
    width, height = draw.textlength(text, font=font) + 8, 20.0
    left = min(max(0.0, box[0]), max(0.0, size[0] - width))
    top = max(0.0, box[1] - height)
    while any(left < t[2] and t[0] < left + width and top < t[3] and t[1] < top + height for t in taken):
        if top + 2 * height > size[1]:
            break
        top += height
    taken.append((left, top, left + width, top + height))
    return taken[-1]


def _draw_text(sample: StoredSample, most: int) -> Image.Image:
    """The panel beside the picture, as tall as it needs to be."""
    title, body, small = (ImageFont.load_default(points) for points in (22, 18, 15))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines: list[tuple[str, Any, tuple[int, int, int], int, bool]] = [(sample.key, title, INK, 34, False)]
    place = f"shard {sample.shard}, position {sample.position}"
    if sample.regions is not None:
        count = len(sample.regions.scores)
        place += f"; {count} regions" + (f", the best {most} drawn" if count > most else "")
    lines.append((place, small, FAINT, 24, False))
    for field, fate in sample.fates.items():
        if fate != OK:
            lines += [(line, small, (180, 40, 40), 22, False) for line in _wrap(measure, f"{field}: {fate}", small)]
    for caption in sample.captions:
        lines.append(("", small, INK, 14, False))
        lines += [(line, body, INK, 26, False) for line in _wrap(measure, caption.text, body)]
        if not caption.phrases:
            lines.append(("no known phrase", small, FAINT, 24, False))
        lines += [(" | ".join(known.phrase), small, INK, 26, True) for known in caption.phrases]
    panel = Image.new("RGB", (TEXT_WIDTH, sum(height for *_, height, _ in lines) + 8), PAPER)
    draw = ImageDraw.Draw(panel)
    top = 0
    for text, font, ink, height, chip in lines:
        if chip:
            draw.rounded_rectangle(
                (12, top + 1, 12 + draw.textlength(text, font=font) + 16, top + height - 3), 8, fill=CHIP
            )
        draw.text((20 if chip else 0, top + 2), text, font=font, fill=ink)
        top += height
    return panel


def _size(sample: StoredSample) -> tuple[int, int]:
    if sample.image is not None:
        return sample.image.size
    if sample.regions is not None and sample.regions.width and sample.regions.height:
        return sample.regions.width, sample.regions.height
    return PICTURE, PICTURE


def _wrap(draw: ImageDraw.ImageDraw, text: str, font: Any) -> Sequence[str]:
    """Lines no wider than the panel; a single word that is wider is cut."""
    lines = [""]
    for word in text.split():
        while draw.textlength(word, font=font) > TEXT_WIDTH:
            word = word[: len(word) * 2 // 3]
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= TEXT_WIDTH:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _color(number: int) -> tuple[int, int, int]:
    """Well separated, dark enough for white letters: hues a golden angle apart."""
    red, green, blue = colorsys.hls_to_rgb((number * 0.618034) % 1.0, 0.38, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)
