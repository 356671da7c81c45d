"""`webhook`: the payload as it was sent, signed.

By default as Standard Webhooks asks for. `signatures` lists other forms for receivers that exist:

    {"form": "standard"}                       webhook-id, webhook-timestamp, webhook-signature
    {"form": "token", "header": "X-Gitlab-Token"}                          the secret itself
    {"form": "timestamp", "header": "X-Timestamp"}                         seconds since 1970
    {"form": "hmac", "header": "X-Hub-Signature-256", "value": "sha256={signature}"}       as GitHub's
    {"form": "hmac", "header": "Stripe-Signature", "signed": "{timestamp}.{body}",
     "value": "t={timestamp},v1={signature}"}                                              as Stripe's

Their key is the text of the secret, with its prefix.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from yelpaze.hooks.kinds.protocol import (
    JSON_HEADERS,
    RESERVED,
    Builder,
    Content,
    HttpCall,
    Kind,
    Secret,
    Settings,
    headers_of,
)
from yelpaze.hooks.signing import Signer, key_of, plain_digest
from yelpaze.model.errors import MisuseError
from yelpaze.model.request import check_headers


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One form of signature."""

    form: Literal["standard", "token", "timestamp", "hmac"] = "standard"
    header: str = ""
    signed: str = "{body}"
    value: str = "{signature}"
    encoding: Literal["hex", "base64"] = "hex"


class WebhookOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The forms of signature that requests have."""

    signatures: tuple[Signature, ...] = (Signature(),)


def _check(_settings: Settings, options: WebhookOptions) -> Iterator[tuple[str, str]]:
    for number, one in enumerate(options.signatures):
        field = f"options.signatures.{number}"
        if one.form == "standard":
            continue
        try:
            check_headers([(one.header, "x")])
        except MisuseError:
            yield f"{field}.header", f"is no name of a header of one's own: {one.header!r}"
        if one.header.lower() in RESERVED:
            yield f"{field}.header", f"{one.header} is set by the service itself"
        if not (one.value.isascii() and one.value.isprintable()):
            yield f"{field}.value", "takes printable ASCII characters"
        if one.form == "hmac" and "{body}" not in one.signed:
            yield f"{field}.signed", "has {body} in it, and {timestamp} or {id} if they are wanted"
        if one.form == "hmac" and "{signature}" not in one.value:
            yield f"{field}.value", "has {signature} in it, and {timestamp} if it is wanted"


def _prepare(settings: Settings, options: WebhookOptions, secrets: tuple[Secret, ...]) -> Builder:
    forms = options.signatures
    is_standard = any(one.form == "standard" for one in forms)
    others = [one for one in forms if one.form != "standard"]
    keys = [(Signer(key_of(one.text)), one.expires) for one in secrets] if is_standard else []
    url = settings.url
    reserved = {one.header.lower() for one in others}
    own = tuple(pair for pair in headers_of(settings, *JSON_HEADERS) if pair[0].lower() not in reserved)
    lasting = len(keys) == 1 and keys[0][1] is None

    def build(content: Content) -> HttpCall:
        now, body, message_id = content.now, content.payload, content.message_id
        headers = own
        if is_standard:
            valid = (
                keys
                if lasting
                else [(key, until) for key, until in keys if until is None or until > now * 1000]
            )
            signed = " ".join([signer.sign(message_id, now, body) for signer, _ in valid])
            headers = (
                ("webhook-id", message_id),
                ("webhook-timestamp", str(now)),
                ("webhook-signature", signed),
                *own,
            )
        if others:
            headers = (*headers, *(_older(one, secrets, content) for one in others))
        return HttpCall("POST", url, headers, body)

    return build


def _older(form: Signature, secrets: tuple[Secret, ...], content: Content) -> tuple[str, str]:
    secret = secrets[0].text if secrets else ""  # these forms have room for one: the newest
    if form.form == "token":
        return form.header, secret
    if form.form == "timestamp":
        return form.header, str(content.now)
    parts = {"{timestamp}": str(content.now).encode(), "{id}": content.message_id.encode()}
    before, _, after = form.signed.partition("{body}")
    signed = b"".join([_with(before, parts), content.payload, _with(after, parts)])
    text = form.value.replace("{timestamp}", str(content.now)).replace("{id}", content.message_id)
    return form.header, text.replace("{signature}", plain_digest(secret, signed, form.encoding))


def _with(text: str, parts: dict[str, bytes]) -> bytes:
    data = text.encode()
    for name, value in parts.items():
        data = data.replace(name.encode(), value)
    return data


WEBHOOK = Kind(name="webhook", options=WebhookOptions, prepare=_prepare, check=_check, signs=True)
