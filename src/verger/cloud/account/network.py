"""What EMR leaves behind in a network, which costs money or keeps it from being deleted."""

from typing import Any

from verger.cloud.account.cloudformation import TAGS
from verger.errors import SetupError
from verger.progress import TIME, Time
from verger.store.errors import aws_errors

ENDPOINT_MINUTES = 10
"""What an endpoint may take to be deleted."""

MANAGED = "aws:cloudformation:stack-name"
"""The tag of what CloudFormation made, which it deletes itself."""


def find_networks(session: Any) -> list[str]:
    """Ids of the networks in the session's region that have verger's tag.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("ec2")
    ours = {"Name": "tag:application", "Values": [TAGS["application"]]}
    with aws_errors("look for verger's network"):
        found = client.describe_vpcs(Filters=[ours])["Vpcs"]
    return [one["VpcId"] for one in found]


def find_subnets(session: Any) -> list[str]:
    """Ids of the subnets of these networks.

    Raises:
        SetupError: AWS refuses.
    """
    if not (networks := find_networks(session)):
        return []
    client = session.client("ec2")
    with aws_errors("look for the subnets of verger's network"):
        found = client.describe_subnets(Filters=[{"Name": "vpc-id", "Values": networks}])["Subnets"]
    return [one["SubnetId"] for one in found]


def find_endpoints(session: Any, network: str) -> list[str]:
    """Ids of endpoints in a network that verger's stack has not made: each is paid by the hour.

    Raises:
        SetupError: AWS refuses.
    """
    client = session.client("ec2")
    with aws_errors("list the endpoints of the network"):
        pages = client.get_paginator("describe_vpc_endpoints").paginate(
            Filters=[{"Name": "vpc-id", "Values": [network]}]
        )
        return [
            endpoint["VpcEndpointId"]
            for endpoint in pages.search("VpcEndpoints[]")
            if endpoint["VpcEndpointType"] != "Gateway"
            and endpoint["State"].lower() not in {"deleted", "deleting"}
            and MANAGED not in {tag["Key"] for tag in endpoint.get("Tags", ())}
        ]


def free_network(session: Any, network: str, time: Time = TIME) -> None:
    """Take away what EMR made in a network, or it cannot be deleted: endpoints, security groups.

    Raises:
        SetupError: AWS refuses, as it does while machines still use them, or an endpoint stays.
    """
    client = session.client("ec2")
    endpoints = find_endpoints(session, network)
    if endpoints:
        with aws_errors("delete the endpoints that EMR made"):
            client.delete_vpc_endpoints(VpcEndpointIds=endpoints)
        for _ in range(int(ENDPOINT_MINUTES * 60 / time.poll_seconds)):
            if not _are_there(client, network, endpoints):
                break
            time.sleep(time.poll_seconds)
        else:
            raise SetupError(
                f"The endpoints {', '.join(endpoints)} are still being deleted.",
                "Give the same command again in some minutes.",
            )
    _delete_groups(client, network)


def _are_there(client: Any, network: str, endpoints: list[str]) -> bool:
    with aws_errors("look for the endpoints"):
        found = client.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [network]}])
    return any(
        one["VpcEndpointId"] in endpoints and one["State"].lower() != "deleted"
        for one in found["VpcEndpoints"]
    )


def _delete_groups(client: Any, network: str) -> None:
    """Security groups name each other, so that their rules go first."""
    with aws_errors("delete the security groups of EMR"):
        pages = client.get_paginator("describe_security_groups").paginate(
            Filters=[{"Name": "vpc-id", "Values": [network]}]
        )
        groups = list(pages.search("SecurityGroups[?GroupName != 'default']"))
        for group in groups:
            if rules := group["IpPermissions"]:
                client.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=rules)
            if rules := group["IpPermissionsEgress"]:
                client.revoke_security_group_egress(GroupId=group["GroupId"], IpPermissions=rules)
        for group in groups:
            client.delete_security_group(GroupId=group["GroupId"])
