"""What EC2 has to be told so that machines are safe, and leave nothing behind."""

from typing import Any

from verger.store.errors import aws_errors


def encrypt_disks(session: Any, region: str) -> None:
    """Have AWS encrypt all new disks of the account in a region, those of clusters among them.

    EMR's own encryption of disks needs a key service that a network without internet reaches only
    through an endpoint that is paid by the hour.

    Raises:
        SetupError: AWS refuses.
    """
    with aws_errors("encrypt new disks"):
        session.client("ec2", region_name=region).enable_ebs_encryption_by_default()


def free_network(session: Any, region: str, network: str) -> None:
    """Take away the security groups that EMR made in a network, or it cannot be deleted.

    EMR leaves them behind, and they name each other.

    Args:
        session: a session of boto3.
        region: where.
        network: id of the VPC.

    Raises:
        SetupError: AWS refuses, as it does while machines still use them.
    """
    client = session.client("ec2", region_name=region)
    with aws_errors("delete the security groups of EMR"):
        pages = client.get_paginator("describe_security_groups")
        groups = [
            group
            for page in pages.paginate(Filters=[{"Name": "vpc-id", "Values": [network]}])
            for group in page["SecurityGroups"]
            if group["GroupName"] != "default"
        ]
        for group in groups:
            if rules := group["IpPermissions"]:
                client.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=rules)
            if rules := group["IpPermissionsEgress"]:
                client.revoke_security_group_egress(GroupId=group["GroupId"], IpPermissions=rules)
        for group in groups:
            client.delete_security_group(GroupId=group["GroupId"])
