"""The XML of PASCAL VOC, which ImageNet's boxes came in too. What the corners mean is for the data set to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml
from defusedxml.ElementTree import parse

from gradcam_bench.errors import UserError
from gradcam_bench.geometry import Size


def read(path: Path) -> Element:
    """The root of a file. Raises UserError naming it."""
    try:
        root: Element = parse(path).getroot()  # type: ignore[assignment]
        return root
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotation") from None
    except defusedxml.DefusedXmlException:
        raise UserError(f"{path}: refused, it declares XML entities (bomb?)") from None
    except (ParseError, OSError, ValueError) as error:
        raise UserError(f"{path}: no readable XML ({error})") from None


def declared(root: Element) -> Size | None:
    """(height, width) that the annotation declares, None where it does not."""
    try:
        size = int(root.findtext("size/height") or ""), int(root.findtext("size/width") or "")
    except ValueError:
        return None
    return size if min(size) > 0 else None


def objects(root: Element) -> Iterator[tuple[str, tuple[float, ...] | None, bool]]:
    """Name, corners (xmin, ymin, xmax, ymax) as written, and whether difficult, of each object. Corners: None where one
    is missing or no number."""
    for item in root.iter("object"):
        corners: tuple[float, ...] | None = None
        with suppress(ValueError):
            corners = tuple(float(item.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax"))
        yield (item.findtext("name") or "").strip(), corners, (item.findtext("difficult") or "0").strip() == "1"
