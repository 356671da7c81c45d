"""Badges in SVG, with Gatus's colours and thresholds."""

from html import escape

_UPTIME = ((0.975, "#40cc11"), (0.95, "#94cc11"), (0.9, "#ccd311"), (0.8, "#ccb311"), (0.65, "#cc8111"))
_LATENCY = ((50, "#40cc11"), (200, "#94cc11"), (300, "#ccd311"), (500, "#ccb311"), (750, "#cc8111"))
_WORST = "#c7130a"
_UNKNOWN = "#ccb311"
_CHARACTER = 6.6  # pixels of a character at 11 px
_PADDING = 12


def uptime_badge(period: str, uptime: float | None) -> str:
    """The share of good results."""
    if uptime is None:
        return _badge(f"uptime {period}", "?", _UNKNOWN)
    colour = next((colour for least, colour in _UPTIME if uptime >= least), _WORST)
    text = f"{uptime * 100:.2f}".rstrip("0").rstrip(".")
    return _badge(f"uptime {period}", f"{text}%", colour)


def latency_badge(period: str, average: float | None) -> str:
    """Milliseconds on average."""
    if average is None:
        return _badge(f"response time {period}", "?", _UNKNOWN)
    colour = next((colour for most, colour in _LATENCY if average <= most), _WORST)
    return _badge(f"response time {period}", f"{average:.0f}ms", colour)


def health_badge(status: str) -> str:
    """Up or down."""
    text, colour = {"up": ("up", "#40cc11"), "down": ("down", _WORST), "seems_down": ("up?", _UNKNOWN)}.get(
        status, ("?", _UNKNOWN)
    )
    return _badge("health", text, colour)


def _badge(label: str, text: str, colour: str) -> str:
    left = round(len(label) * _CHARACTER) + _PADDING
    right = round(len(text) * _CHARACTER) + _PADDING
    width = left + right
    label, text = escape(label), escape(text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
        f'aria-label="{label}: {text}"><title>{label}: {text}</title>'
        f'<clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath><g clip-path="url(#r)">'
        f'<rect width="{left}" height="20" fill="#555"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" '
        f'font-size="11"><text x="{left / 2}" y="14">{label}</text>'
        f'<text x="{left + right / 2}" y="14">{text}</text></g></svg>'
    )
