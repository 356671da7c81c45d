"""What is wrong with a JSON text, where the parser's own words mislead."""

import json

import msgspec


def explained(data: bytes, error: Exception) -> str:
    """Why `data` could not be decoded, given msgspec's error.

    >>> explained(b"", msgspec.DecodeError("Input data was truncated"))
    'it is empty'
    """
    if not data.strip():
        return "it is empty"
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    try:
        value = json.loads(data)  # takes half of a surrogate pair, which msgspec calls the end of its input
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return r"it holds half of a surrogate pair, such as \ud83d alone, which is no character"
    except (ValueError, RecursionError):
        pass
    return str(error)
