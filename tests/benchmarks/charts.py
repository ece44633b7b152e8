# SPDX-License-Identifier: Apache-2.0
"""Bar and line charts as SVG text. Colours follow the reader's light or dark setting."""
import math
from xml.sax.saxutils import escape

# Series keep their colour in every chart; chosen to differ for colour-blind readers too, in light and dark.
_COLOURS = {
    "larql": ("#0b62b8", "#5aa9f5"), "torch": ("#d1661a", "#f0944d"), "ggml": ("#7a7f87", "#a6adb8"),
    "gguf-py": ("#3d8b57", "#6fc48c"), "BLAS": ("#8250df", "#ab7df8"), "memcpy": ("#8250df", "#ab7df8"),
}
_BAR, _GAP, _WIDTH, _RIGHT = 13, 10, 860, 80


def _style(names):
    light = {"back": "#ffffff", "text": "#1f2328", "faint": "#59636e", "grid": "#d8dee4"}
    dark = {"back": "#0d1117", "text": "#e6edf3", "faint": "#9198a1", "grid": "#30363d"}

    def rules(theme, which):
        out = [f".back{{fill:{theme['back']}}}", f"text{{fill:{theme['text']}}}", f".faint{{fill:{theme['faint']}}}",
               f".grid{{stroke:{theme['grid']}}}", f".axis{{stroke:{theme['faint']}}}",
               f".halo{{stroke:{theme['back']}}}"]
        for i, name in enumerate(names):
            colour = _COLOURS.get(name, ("#8250df", "#ab7df8"))[which]
            out += [f".s{i}{{fill:{colour}}}", f".l{i}{{stroke:{colour};fill:none;stroke-width:2}}"]
        return "".join(out)

    font = "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;font-size:12px}"
    big = ".title{font-size:15px;font-weight:600}"
    return f"<style>{font}{big}{rules(light, 0)}@media (prefers-color-scheme:dark){{{rules(dark, 1)}}}</style>"


def _text(x, y, text, anchor="start", kind=""):
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def number(value):
    """Three significant digits without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def _ticks(highest):
    step = 10 ** math.floor(math.log10(highest / 4))
    step *= next(f for f in (1, 2, 5, 10) if highest / (step * f) <= 6)
    return [i * step for i in range(math.ceil(highest / step - 1e-9) + 1)]


def _document(title, subtitle, names, width, height, body):
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" aria-label="{escape(title)}">', f"<title>{escape(title)}</title>", _style(names),
            f'<rect class="back" width="{width}" height="{height}"/>', _text(16, 26, title, kind="title"),
            _text(16, 45, subtitle, kind="faint")]
    x = 16
    for i, name in enumerate(names):
        head.append(f'<rect class="s{i}" x="{x}" y="57" width="12" height="12" rx="2"/>')
        head.append(_text(x + 18, 67, name))
        x += 34 + 8 * len(name)
    return "\n".join(head + body + ["</svg>", ""])


def bars(title, subtitle, unit, names, rows):
    """Horizontal bars, grouped. `rows` is a list of (label, {name: value}); a name without a value leaves no bar."""
    left = 24 + 7.2 * max(len(label) for label, _ in rows)
    ticks = _ticks(max((v for _, values in rows for v in values.values()), default=1) or 1)
    scale = (_WIDTH - left - _RIGHT) / ticks[-1]
    top, y, body = 84, 84 + _GAP / 2, []
    for label, values in rows:
        present = [i for i, name in enumerate(names) if name in values]
        body.append(_text(left - 8, y + _BAR * len(present) / 2 + 4, label, "end"))
        for i in present:
            value = values[names[i]]
            body.append(f'<rect class="s{i}" x="{left:.1f}" y="{y:.1f}" width="{max(value * scale, 1):.1f}" '
                        f'height="{_BAR - 2}" rx="1.5"/>')
            body.append(_text(left + value * scale + 5, y + _BAR - 3, number(value), kind="faint"))
            y += _BAR
        y += _GAP
    bottom = y - _GAP / 2
    grid = []
    for tick in ticks:
        x = left + tick * scale
        grid += [_line(x, top, x, bottom, "axis" if tick == 0 else "grid"),
                 _text(x, bottom + 17, f"{tick:g}", "middle", "faint")]
    grid.append(_text(left + (_WIDTH - left - _RIGHT) / 2, bottom + 37, unit, "middle"))
    return _document(title, subtitle, names, _WIDTH, math.ceil(bottom + 50), grid + body)


def lines(title, subtitle, x_unit, y_unit, names, series):
    """Lines over logarithmic axes. `series` is a list of (label, name, [(x, y), ...]); a name gives the colour."""
    left, top, right, bottom = 84, 90, _WIDTH - 250, 430
    points = [p for _, _, line in series for p in line]
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    y_low = 10 ** math.floor(math.log10(min(p[1] for p in points)))
    y_high = 10 ** math.ceil(math.log10(max(p[1] for p in points)))
    y_high = y_high * 10 if y_high == y_low else y_high
    at_x = lambda x: left + (right - left) * math.log(x / x_low) / math.log(x_high / x_low)
    at_y = lambda y: bottom - (bottom - top) * math.log(y / y_low) / math.log(y_high / y_low)
    body = [_line(left, bottom, right, bottom, "axis"), _line(left, top, left, bottom, "axis")]
    for x in sorted({p[0] for p in points}):
        body += [_line(at_x(x), top, at_x(x), bottom, "grid"),
                 _text(at_x(x), bottom + 17, f"{x:g}", "middle", "faint")]
    for power in range(round(math.log10(y_low)), round(math.log10(y_high)) + 1):
        y = at_y(10.0 ** power)
        body += [_line(left, y, right, y, "grid"), _text(left - 8, y + 4, f"{10.0 ** power:g}", "end", "faint")]
    ends = []
    for label, name, line in series:
        i = names.index(name)
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in line)
        body.append(f'<polyline class="l{i}" points="{path}"/>')
        body += [f'<circle class="s{i}" cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3"/>' for x, y in line]
        ends.append((at_y(line[-1][1]), label))
    lowest = top - 14
    for y, label in sorted(ends):  # labels move down rather than overlap
        lowest = max(y + 4, lowest + 14)
        body.append(_text(right + 10, lowest, label, kind="faint"))
    body += [_text((left + right) / 2, bottom + 37, x_unit, "middle"),
             f'<text transform="translate(22 {(top + bottom) / 2}) rotate(-90)" text-anchor="middle">'
             f"{escape(y_unit)}</text>"]
    return _document(title, subtitle, names, _WIDTH, bottom + 50, body)
