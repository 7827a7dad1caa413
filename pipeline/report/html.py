"""HTML that is safe by construction: text is escaped, only what `tag` returns is markup."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

from PIL import Image


class Markup(str):
    """A string that is markup already."""

    __slots__ = ()


Child = str | int | float | None
_VOID = {"img", "meta", "rect"}


def tag(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """An element. Children are escaped unless they are Markup; None is left out.

    Attribute names lose a trailing underscore (`class_`) and get hyphens for the others.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>" if name != "rect" else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children one after the other, escaped unless they are Markup."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(str(child))
            for child in children
            if child is not None
        )
    )


def picture(image: Image.Image, alt: str) -> Markup:
    """An image inside the page, as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    size = {"width": image.width, "height": image.height}
    return tag("img", src=f"data:image/jpeg;base64,{data}", alt=alt, loading="lazy", **size)


def number(value: float | None, digits: int = 2) -> str:
    """A count with separators, or a fraction; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share of 1 as per cent with two figures that count."""
    if value is None:
        return "–"
    return f"{value * 100:.1f} %" if value >= 0.01 else f"{value * 100:.2g} %"


def histogram(spread: dict[str, Any], label: str, ends: tuple[str, str]) -> Markup:
    """Bars as inline SVG over `spread["counts"]`, with a title for each bar and a text for readers."""
    counts: list[int] = spread["counts"]
    most = max([*counts, 1])
    bars = []
    for place, count in enumerate(counts):
        height = max(1.5, 100 * count / most) if count else 0
        bars.append(
            tag(
                "rect",
                x=f"{place * 10 + 0.6:.1f}",
                y=f"{100 - height:.1f}",
                width="8.8",
                height=f"{height:.1f}",
            )
        )
    total = sum(counts)
    text = f"{label}: {total:,} masks from {ends[0]} to {ends[1]}"
    chart = tag(
        "svg",
        tag("title", text),
        *bars,
        viewBox=f"0 0 {len(counts) * 10} 100",
        preserveAspectRatio="none",
        role="img",
    )
    axis = tag("div", tag("span", ends[0]), tag("span", ends[1]), class_="axis")
    return tag("figure", tag("figcaption", label), chart, axis, class_="histogram")


def table(head: list[str], rows: list[list[Child]], *, numeric: set[int], caption: str) -> Markup:
    """A table; columns in `numeric` are set right."""

    def cells(kind: str, values: list[Any]) -> Markup:
        return join(
            *(
                tag(kind, value, class_="n" if place in numeric else None)
                for place, value in enumerate(values)
            )
        )

    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", cells("th", list(head)))),
            tag("tbody", *(tag("tr", cells("td", row)) for row in rows)),
        ),
        class_="scroll",
    )


def bar(share: float, text: str) -> Markup:
    """A text over a bar as long as `share` (0..1) of its cell."""
    width = f"{100 * min(1.0, max(0.0, share)):.1f}%"
    fill = tag("i", style=f"width:{width}")
    return tag("span", fill, tag("b", text), class_="bar")
