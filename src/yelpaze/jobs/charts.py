"""Charts as SVG, for pages that need nothing else."""

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 760, 240, 70, 28, 32  # the colour key stands above the lines
_MANY = 100
_ANCHORS = {0: "start", 0.5: "middle", 1: "end"}
COLOURS = ("#0b6e6e", "#d97706", "#b91c1c")


def lines(times: Sequence[float], series: Sequence[tuple[str, Sequence[float]]], *, unit: str) -> str:
    """Values over time; `times` in seconds."""
    most = max([value for _, values in series for value in values] or [1.0]) or 1.0
    span = max(times[-1] if times else 0.0, 1e-9)

    def x(second: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 10) * second / span

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / most)

    parts = [_frame(_HEIGHT)]
    for share in (0, 0.5, 1):
        level = y(most * share)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{level:.1f}" y2="{level:.1f}" class="rule"/>'
            f'<text x="{_LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{_number(most * share)}</text>'
        )
        time = span * share
        parts.append(
            f'<text x="{x(time):.0f}" y="{_HEIGHT - 8}" text-anchor="{_ANCHORS[share]}">'
            f"{_number(time)} s</text>"
        )
    for number, (_, values) in enumerate(series):
        points = " ".join(f"{x(time):.1f},{y(value):.1f}" for time, value in zip(times, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
    return "".join([*parts, _key([f"{name} ({unit})" for name, _ in series]), "</svg>"])


def _key(names: Sequence[str]) -> str:
    """What the colours stand for, in one line at the top."""
    parts, left = [], _LEFT
    for number, name in enumerate(names):
        parts.append(
            f'<rect x="{left}" y="6" width="12" height="12" rx="2" fill="{COLOURS[number % 3]}"/>'
            f'<text x="{left + 18}" y="16">{escape(name)}</text>'
        )
        left += 18 + 8 * len(name) + 24
    return "".join(parts)


def bars(groups: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, unit: str) -> str:
    """For each name some values, each a bar beside its label."""
    most = max([value for _, values in groups for _, value in values] or [1.0]) or 1.0
    row, left = 18, 220
    labels = [label for label, _ in groups[0][1] if label] if groups else []
    head = 30 if labels else 10
    height = head + sum(len(values) * row + 10 for _, values in groups)
    parts, top = [_frame(height), _key(labels)], head
    for name, values in groups:
        middle = top + len(values) * row / 2 + 4
        parts.append(f'<text x="{left - 60}" y="{middle:.0f}" text-anchor="end">{escape(name)}</text>')
        for number, (label, value) in enumerate(values):
            length = (_WIDTH - left - 110) * value / most
            parts.append(
                f'<text x="{left - 10}" y="{top + 13}" text-anchor="end" class="quiet">{escape(label)}</text>'
                f'<rect x="{left}" y="{top + 2}" width="{max(length, 1):.1f}" height="{row - 5}" rx="2" '
                f'fill="{COLOURS[number % 3]}"/>'
                f'<text x="{left + length + 8:.0f}" y="{top + 13}">{_number(value)} {escape(unit)}</text>'
            )
            top += row
        top += 10
    return "".join([*parts, "</svg>"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _MANY else f"{value:.3g}"


def _frame(height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="100%" '
        'role="img" font-family="system-ui, sans-serif" font-size="12">'
    )
