"""The calls of AWS that verger makes, as its tests have recorded them, and the rights they need."""

import json
from functools import cache
from pathlib import Path

CALLS = Path(__file__).parent / "cloud/calls.json"

SERVICES = {
    "emr": "elasticmapreduce",
    "service-quotas": "servicequotas",
}
"""Those whose rights have another prefix."""

RIGHTS = {
    "s3:HeadBucket": {"s3:ListBucket"},
    "s3:ListObjectsV2": {"s3:ListBucket"},
    "s3:HeadObject": {"s3:GetObject"},
    "s3:CreateMultipartUpload": {"s3:PutObject"},
    "s3:UploadPart": {"s3:PutObject"},
    "s3:CompleteMultipartUpload": {"s3:PutObject"},
    "s3:DeleteObjects": {"s3:DeleteObject", "s3:DeleteObjectVersion"},
    "s3:ListObjectVersions": {"s3:ListBucketVersions"},
    "s3:ListMultipartUploads": {"s3:ListBucketMultipartUploads"},
    "budgets:CreateBudget": {"budgets:ModifyBudget"},
    "budgets:DeleteBudget": {"budgets:ModifyBudget"},
    "emr:RunJobFlow": {
        "elasticmapreduce:RunJobFlow",
        "elasticmapreduce:AddTags",
        "elasticmapreduce:PutAutoTerminationPolicy",
        "iam:PassRole",
        "iam:CreateServiceLinkedRole",
    },
    "scheduler:CreateSchedule": {"scheduler:CreateSchedule", "iam:PassRole"},
}
"""Calls whose rights have other names or are more than one, by AWS' reference of permissions."""

HANDLERS = {
    "AWS::S3::Bucket": {
        "s3:CreateBucket", "s3:PutEncryptionConfiguration", "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketOwnershipControls", "s3:PutLifecycleConfiguration", "s3:PutBucketTagging",
        "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration",
        "s3:GetBucketPublicAccessBlock", "s3:GetBucketOwnershipControls", "s3:DeleteBucket",
    },
    "AWS::S3::BucketPolicy": {"s3:PutBucketPolicy", "s3:GetBucketPolicy", "s3:DeleteBucketPolicy"},
    "AWS::EC2::VPC": {
        "ec2:CreateVpc", "ec2:DeleteVpc", "ec2:ModifyVpcAttribute", "ec2:DescribeVpcs",
        "ec2:DescribeVpcAttribute", "ec2:CreateTags",
    },
    "AWS::EC2::Subnet": {
        "ec2:CreateSubnet", "ec2:DeleteSubnet", "ec2:ModifySubnetAttribute", "ec2:DescribeSubnets",
        "ec2:CreateTags",
    },
    "AWS::EC2::RouteTable": {
        "ec2:CreateRouteTable", "ec2:DeleteRouteTable", "ec2:DescribeRouteTables", "ec2:CreateTags",
    },
    "AWS::EC2::SubnetRouteTableAssociation": {
        "ec2:AssociateRouteTable", "ec2:DisassociateRouteTable", "ec2:DescribeRouteTables",
    },
    "AWS::EC2::VPCEndpoint": {
        "ec2:CreateVpcEndpoint", "ec2:ModifyVpcEndpoint", "ec2:DeleteVpcEndpoints",
        "ec2:DescribeVpcEndpoints",
    },
    "AWS::IAM::Role": {
        "iam:CreateRole", "iam:DeleteRole", "iam:GetRole", "iam:TagRole", "iam:AttachRolePolicy",
        "iam:DetachRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:GetRolePolicy",
    },
    "AWS::IAM::Policy": {"iam:PutRolePolicy", "iam:GetRolePolicy", "iam:DeleteRolePolicy"},
    "AWS::IAM::ManagedPolicy": {
        "iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:DeletePolicy",
        "iam:DeletePolicyVersion", "iam:GetPolicy", "iam:ListPolicyVersions", "iam:TagPolicy",
    },
    "AWS::IAM::InstanceProfile": {
        "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile", "iam:GetInstanceProfile",
        "iam:AddRoleToInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:PassRole",
    },
    "AWS::EMR::SecurityConfiguration": {
        "elasticmapreduce:CreateSecurityConfiguration",
        "elasticmapreduce:DeleteSecurityConfiguration",
        "elasticmapreduce:DescribeSecurityConfiguration",
    },
    "AWS::Scheduler::ScheduleGroup": {
        "scheduler:CreateScheduleGroup", "scheduler:DeleteScheduleGroup",
        "scheduler:GetScheduleGroup", "scheduler:TagResource",
    },
}  # fmt: skip
"""What CloudFormation does in the name of its caller, by kind of resource."""


@cache
def known_calls() -> dict[str, list[str]]:
    """Each call that the tests have recorded, and what answered it."""
    return json.loads(CALLS.read_text()) if CALLS.exists() else {}


def permissions_of(call: str) -> set[str]:
    """The rights that a call needs."""
    service, _, operation = call.partition(":")
    return RIGHTS.get(call) or {f"{SERVICES.get(service, service)}:{operation}"}
