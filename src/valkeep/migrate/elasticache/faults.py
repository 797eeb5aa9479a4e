"""What AWS answers instead of doing it: each kind of refusal with a code and a remedy.

The table is ordered: the first row that has the error's name wins. ``definite``: a request that AWS refused surely did nothing; one whose answer never
came may have been carried out, and who asked looks at the group's status.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from valkeep.errors import ConnectionLost, Refused, ValkeepError

__all__ = ["DENIED", "explain", "is_denied", "name_of"]

DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "OptInRequired"})


@dataclass(frozen=True, slots=True)
class _Fault:
    """``names``: error codes of AWS, or classes of botocore. ``what``: may have {action}, {group}, {said}."""

    names: frozenset[str]
    code: str
    what: str
    remedy: str


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FAULTS: Final = (
    _Fault(
        _names("NoCredentialsError PartialCredentialsError CredentialRetrievalError ProfileNotFound TokenRetrievalError SSOTokenLoadError"),
        code="VK-AWS-CREDENTIALS",
        what="no credentials for AWS were found: {said}",
        remedy="give this machine a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `aws sts get-caller-identity` "
        "shows who you are",
    ),
    _Fault(
        _names(
            "InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch ExpiredToken ExpiredTokenException RequestExpired "
            "InvalidAccessKeyId IncompleteSignature MissingAuthenticationToken UnauthorizedSSOTokenError"
        ),
        code="VK-AWS-CREDENTIALS",
        what="AWS does not accept these credentials for {action}: {said}",
        remedy="renew them (aws sso login, or a new session token), and see that this machine's clock is right",
    ),
    _Fault(
        _names("NoRegionError InvalidRegionError"),
        code="VK-AWS-REGION",
        what="AWS' region is not known: {said}",
        remedy="say --aws-region REGION, or set AWS_DEFAULT_REGION",
    ),
    _Fault(
        DENIED,
        code="VK-AWS-DENIED",
        what="AWS denies {action}: {said}",
        remedy="permit {action} on the replication group to whoever runs Valkeep; docs/how-to/elasticache.md has the whole policy",
    ),
    _Fault(
        _names("Throttling ThrottlingException RequestLimitExceeded TooManyRequestsException"),
        code="VK-AWS-THROTTLED",
        what="AWS throttles {action}, also after several tries: {said}",
        remedy="wait a minute and try again; see who else calls this API in the account",
    ),
    _Fault(
        _names("ReplicationGroupNotFoundFault"),
        code="VK-EC-NOT-FOUND",
        what="there is no replication group {group} in this region and account: {said}",
        remedy="check the id, --aws-region and the account (`aws elasticache describe-replication-groups`)",
    ),
    _Fault(
        _names("InvalidReplicationGroupState InvalidReplicationGroupStateFault InvalidCacheClusterState InvalidCacheClusterStateFault"),
        code="VK-EC-STATE",
        what="the replication group {group} is in no state for {action}: {said}",
        remedy="wait until its status is available (`aws elasticache describe-replication-groups`), then start again",
    ),
    _Fault(
        _names("ReplicationGroupAlreadyUnderMigrationFault"),
        code="VK-EC-UNDER-MIGRATION",
        what="the replication group {group} is being migrated already: {said}",
        remedy="end that migration first: `aws elasticache complete-migration --replication-group-id {group} --force` makes it a primary with what it has",
    ),
    _Fault(
        _names("ReplicationGroupNotUnderMigrationFault"),
        code="VK-EC-NOT-UNDER-MIGRATION",
        what="the replication group {group} is not being migrated: {said}",
        remedy="see its events: AWS gave the migration up, or somebody completed it; then start again",
    ),
    _Fault(
        _names("InvalidParameterValue InvalidParameterCombination InvalidParameterValueException InvalidParameterCombinationException"),
        code="VK-EC-PARAMETER",
        what="AWS does not accept {action} for {group}: {said}",
        remedy="`valkeep migrate preflight --target elasticache:{group}` names each requirement with its remedy",
    ),
    _Fault(
        _names(
            "EndpointConnectionError ConnectTimeoutError ReadTimeoutError ConnectionClosedError ProxyConnectionError SSLError HTTPClientError"
        ),
        code="VK-AWS-UNREACHED",
        what="AWS did not answer {action}: {said}",
        remedy="check this machine's way to the API (NAT, VPC endpoint for elasticache, proxy), --aws-region and --aws-endpoint-url",
    ),
)

_UNANSWERED: Final = "VK-AWS-UNREACHED"


def name_of(error: Exception) -> str:
    """AWS' own error code of a ClientError; the class's name of everything else that botocore raises."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", "")) or type(error).__name__
    return type(error).__name__


def is_denied(error: Exception) -> bool:
    return name_of(error) in DENIED


def explain(error: Exception, action: str, group: str, *, changes: bool = False) -> ValkeepError:
    """The house's error for one of botocore. ``action``: as IAM names it; ``changes``: the call would have changed something."""
    name = name_of(error)
    names = {name, *(one.__name__ for one in type(error).__mro__)} if not hasattr(error, "response") else {name}
    said = _said(error)
    for fault in _FAULTS:
        if fault.names & names:
            message, remedy = (text.format(action=action, group=group, said=said) for text in (fault.what, fault.remedy))
            if fault.code == _UNANSWERED:
                return ConnectionLost(message, remedy=remedy, definite=not changes, code=fault.code)
            return Refused(message, remedy=remedy, code=fault.code)
    return ValkeepError(
        f"{action} failed: {name}: {said}",
        remedy="see what AWS says; the group's events may say more (`aws elasticache describe-events --source-type replication-group`)",
        definite=not changes,
        code="VK-AWS-ERROR",
    )


def _said(error: Exception) -> str:
    response: Any = getattr(error, "response", None)
    text = str(response.get("Error", {}).get("Message", "")) if isinstance(response, dict) else str(error)
    return " ".join(text.split())[:300] or name_of(error)
