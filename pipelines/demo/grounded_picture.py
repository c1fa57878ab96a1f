"""A picture with the phrases of a caption where the model finds them."""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mvptr_data.abstract_scenes import draw_scene
from mvptr_data.storage import Store
from mvptr_model.evaluation.grounding import GroundedPhrase, ground_phrases
from mvptr_model.evaluation.held_out import HeldOut
from mvptr_model.saved_model import load_model
from mvptr_model.stream.reader import ShardReader
from pipelines.console import Reporter
from pipelines.demo.data_set import DrawnDataSet
from pipelines.demo.truth import gold_boxes

#: How many pictures, of captions with at least so many phrases.
PICTURES, PHRASES = 3, 2
#: Pixels: the picture's longer side, the margin, a line of text; characters of a line.
PICTURE, MARGIN, LINE, CHARACTERS = 720, 24, 26, 80
INK, PAPER = (28, 30, 34), (255, 255, 255)


def draw_grounded_samples(store: Store, reporter: Reporter, model: Path, drawn: DrawnDataSet) -> None:
    """The first captions of different pictures with several phrases, right or not: nothing is chosen by how well it went."""
    saved = load_model(model)
    with ShardReader(drawn.root) as reader:
        data = HeldOut(reader, saved.words, saved.inputs)
        found = ground_phrases(saved.model, data, gold_boxes(drawn.truth))
        done: set[int] = set()
        for text, group in groupby(found, key=lambda one: one.text):
            phrases = list(group)
            if len(phrases) < PHRASES or text.image in done or len(done) == PICTURES:
                continue
            done.add(text.image)
            sample = data.sample(text.image)
            picture = grounded_picture(draw_scene(drawn.truth[sample.key]), sample.captions[text.caption].text, phrases)
            name = f"pictures/grounded-{sample.key}.png"
            with store.writing(name) as file:
                picture.save(file, format="PNG")
            reporter.say(f"drawn: {store.path(name)}")


def grounded_picture(image: Image.Image, caption: str, phrases: Sequence[GroundedPhrase]) -> Image.Image:
    """`image` with the box found for each phrase of `caption` in the phrase's color, and below whether it is right."""
    scale = PICTURE / max(image.size)
    shown = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    lines = textwrap.wrap(caption, CHARACTERS)
    height = shown.height + 3 * MARGIN + LINE * (len(lines) + len(phrases))
    sheet = Image.new("RGB", (shown.width + 2 * MARGIN, height), PAPER)
    boxes = ImageDraw.Draw(shown)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    top = shown.height + 2 * MARGIN
    for line in lines:
        draw.text((MARGIN, top), line, font=font, fill=INK)
        top += LINE
    for number, one in enumerate(phrases):
        color = _color(number)
        # Boxes of two phrases may be one: each a little inside the one before.
        inset = 5 * number
        x1, y1, x2, y2 = (float(value) * scale for value in one.boxes[one.region])
        if x2 - x1 > 2 * inset and y2 - y1 > 2 * inset:
            boxes.rectangle((x1 + inset, y1 + inset, x2 - inset, y2 - inset), outline=color, width=4)
        draw.rectangle((MARGIN, top + 4, MARGIN + 14, top + 18), fill=color)
        verdict = "right" if one.right[one.region] else "wrong"
        draw.text((MARGIN + 24, top), f"{' | '.join(one.phrase)}: {verdict}", font=font, fill=INK)
        top += LINE
    sheet.paste(shown, (MARGIN, MARGIN))
    return sheet


def _color(number: int) -> tuple[int, int, int]:
    """Hues a golden angle apart."""
    red, green, blue = colorsys.hls_to_rgb((number * 0.618034) % 1.0, 0.42, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)
