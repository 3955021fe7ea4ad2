"""The policies for those who set verger up and who run it, and who lacks what of them."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from typing import Any, Literal

from verger.cloud.account.stack import Stack
from verger.errors import SetupError
from verger.store.errors import aws_errors

Who = Literal["run", "setup"]

MADE = "verger-"
"""How the names of roles begin that the stack makes."""


def policy(who: Who, buckets: tuple[str, ...] = (), account: str = "*") -> dict[str, Any]:
    """The least that somebody needs.

    Args:
        who: `run` for whoever plans, runs, looks and stops; `setup` for `init` and `destroy`.
        buckets: those of the jobs; BUCKET and OTHER stand for them where there are none.
        account: its number.
    """
    text = (files("verger.cloud.account") / "policies" / f"{who}.json").read_text()
    document: dict[str, Any] = json.loads(text.replace(":iam::*:", f":iam::{account}:"))
    for statement in document["Statement"]:
        resources = statement["Resource"]
        if buckets and "BUCKET" in str(resources):
            end = "/*" if "/" in resources[0] else ""
            statement["Resource"] = [f"arn:aws:s3:::{name}{end}" for name in buckets]
    return document


def without_buckets(document: dict[str, Any]) -> None:
    """Have a policy say nothing of buckets, where their names are not known yet."""
    document["Statement"] = [
        one for one in document["Statement"] if "BUCKET" not in str(one["Resource"])
    ]


def name_roles(document: dict[str, Any], stack: Stack) -> None:
    """Have the policy `run` name the roles of a stack that were there before it."""
    theirs = {
        "GiveEmrItsRole": stack.service_role,
        "GiveMachinesTheirRole": stack.instance_profile,
        "GiveTheClockItsRole": stack.scheduler_role.rpartition("/")[2],
    }
    for statement in document["Statement"]:
        name = theirs.get(statement["Sid"], MADE)
        if not name.startswith(MADE):
            before = statement["Resource"].rpartition("/")[0]
            statement["Resource"] = f"{before}/{name}"


def missing_rights(session: Any, arn: str, document: dict[str, Any]) -> list[str]:
    """The actions of a policy that somebody may not do, as AWS simulates it.

    Args:
        session: a session of boto3; its credentials need iam:SimulatePrincipalPolicy, and
            iam:GetRole where they are of a role that has a path.
        arn: who; of a user, or of the session of a role.
        document: the policy, of `policy`.

    Raises:
        SetupError: AWS refuses to say.
    """
    client = session.client("iam")
    principal = _principal(client, arn)
    missing: list[str] = []
    for statement in document["Statement"]:
        with aws_errors("simulate the rights of these credentials"):
            pages = client.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=principal,
                ActionNames=statement["Action"],
                ResourceArns=_examples(statement["Resource"]),
                ContextEntries=list(_context(statement.get("Condition", {}))),
            )
            missing += [
                result["EvalActionName"]
                for result in pages.search("EvaluationResults[]")
                if result["EvalDecision"] != "allowed"
            ]
    return list(dict.fromkeys(missing))


def _principal(client: Any, arn: str) -> str:
    """The user or role behind a session; the root of an account may do all, and is not simulated.

    Raises:
        SetupError: there is none that can be simulated.
    """
    if role := re.fullmatch(r"(arn:[^:]+):sts::(\d+):assumed-role/([^/]+)/.+", arn):
        # A session does not know its role's path, and those of IAM Identity Center have one; who
        # may not ask for it may well have a role without.
        with suppress(SetupError), aws_errors("look at the role of these credentials"):
            return str(client.get_role(RoleName=role[3])["Role"]["Arn"])
        return f"{role[1]}:iam::{role[2]}:role/{role[3]}"
    if ":user/" in arn or ":role/" in arn:
        return arn
    raise SetupError(f"The rights of {arn} cannot be simulated.", "Take a user or a role.")


def _examples(resource: str | list[str]) -> list[str]:
    patterns = [resource] if isinstance(resource, str) else resource
    return [one if one == "*" else one.replace("*", "verger") for one in patterns]


def _context(condition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for wanted in condition.values():
        for key, value in wanted.items():
            yield {
                "ContextKeyName": key,
                "ContextKeyValues": [value.removesuffix("*")],
                "ContextKeyType": "string",
            }
