"""The server's half of AWS' query protocols (elasticache's "query", "ec2"), after the service models that botocore ships: what real boto3 understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape

import botocore.session

__all__ = ["Denial", "failed", "parameters", "replied"]

_MODELS: dict[str, Any] = {}


class Denial(Exception):
    """An error answer: AWS' code, its message, and the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def _model(service: str) -> Any:
    if service not in _MODELS:
        _MODELS[service] = botocore.session.get_session().get_service_model(service)
    return _MODELS[service]


def parameters(fields: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """``A.B.1`` of a form as nested dictionaries: {"A": {"B": {"1": …}}}."""
    found: dict[str, Any] = {}
    for name, values in fields.items():
        *path, last = name.split(".")
        place = found
        for word in path:
            place = place.setdefault(word, {})
        place[last] = values[0]
    return found


def replied(service: str, action: str, content: Mapping[str, Any]) -> bytes:
    """What the service answers: ``content`` as boto3 shows it."""
    model = _model(service)
    shape = model.operation_model(action).output_shape
    inner = _members(shape, content)
    namespace = model.metadata.get("xmlNamespace", "")
    if service == "ec2":
        return f'<{action}Response xmlns="{namespace}"><requestId>0</requestId>{inner}</{action}Response>'.encode()
    wrapper = shape.serialization.get("resultWrapper", f"{action}Result")
    return (
        f'<{action}Response xmlns="{namespace}"><{wrapper}>{inner}</{wrapper}>'
        f"<ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></{action}Response>"
    ).encode()


def failed(service: str, denial: Denial) -> bytes:
    code, message = escape(denial.code), escape(denial.message)
    if service == "ec2":
        return f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>0</RequestID></Response>".encode()
    return (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        "<RequestId>0</RequestId></ErrorResponse>"
    ).encode()


def _members(shape: Any, content: Mapping[str, Any]) -> str:
    unknown = set(content) - set(shape.members)
    assert not unknown, f"{shape.name} has no members {unknown}"
    return "".join(
        _element(member.serialization.get("name", name), member, content[name]) for name, member in shape.members.items() if name in content
    )


def _element(name: str, shape: Any, value: Any) -> str:
    if shape.type_name == "structure":
        return f"<{name}>{_members(shape, value)}</{name}>"
    if shape.type_name == "list":
        item = shape.member.serialization.get("name", "member")
        return f"<{name}>" + "".join(_element(item, shape.member, one) for one in value) + f"</{name}>"
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, datetime):
        text = value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
    else:
        text = escape(str(value))
    return f"<{name}>{text}</{name}>"
