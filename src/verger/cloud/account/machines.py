"""What EC2 is told so that the disks of machines are encrypted."""

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
