"""EMR, and what EC2 has and allows, played by a script: moto's steps never end.

Requests go through botocore, which checks them against AWS' own description of each call; answers
are checked against the same.
"""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from typing import Any

from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.validate import validate_parameters

from policies import as_list

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


class AwsError(Exception):
    """What AWS answers instead, by its code."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


class FakeAws:
    """A cluster that goes through a list of states as it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.timeline = [("STARTING", "PENDING"), ("RUNNING", "RUNNING"), ("RUNNING", "RUNNING")]
        self.end = ("TERMINATED", "COMPLETED", "ALL_STEPS_COMPLETED", "Steps completed")
        self.hangs = False
        self.obeys = True
        self.instances: list[dict[str, Any]] = []
        self.at: dict[str, Callable[[], None]] = {}
        """What happens when a call arrives, and before it is answered."""
        self.after: dict[str, Callable[[], None]] = {}
        """What happens when a call was done, and before its answer is there."""
        self.region = ""
        self.quotas = {"L-1216C47A": 32.0, "L-34B43A08": 32.0}
        self.in_use: list[dict[str, Any]] = []
        """Machines of the account, as DescribeInstances gives them."""
        self.zones = {
            f"subnet-{number}": (f"eu-west-3{letter}", {"m7g.xlarge", "m6g.xlarge", "m6i.xlarge"})
            for number, letter in ((1, "a"), (2, "b"), (3, "c"))
        }
        """The zone of each subnet, and the machines that it has."""
        self.supported = {"m7g.xlarge", "m6g.xlarge", "m6i.xlarge", "m5.xlarge"}
        self.disk_key = ""
        self.errors: list[dict[str, str]] = []
        """Of EMR, beside its word for the end."""
        self.networks: list[str] = []
        self.endpoints: list[str] = []
        """Interface endpoints that EMR left in them."""
        self.granted: dict[str, Any] | None = None
        """The policy of who asks; None where all is allowed."""
        self.role = ""
        """The ARN of the role of who asks; empty where nobody may know it."""
        self._tags: Any = None

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def request(self, name: str) -> dict[str, Any]:
        (found,) = (params for call, params in self.calls if call == name)
        return found

    @property
    def runs(self) -> bool:
        """Whether anything of ours still costs money."""
        return "RunJobFlow" in self.names and bool(self.timeline)

    def install(self, session: Any) -> Any:
        for service in ("emr", "service-quotas", "ec2", "iam"):
            session.events.register(f"before-parameter-build.{service}", self._keep)
            session.events.register(f"before-call.{service}", self._answer)
        return session

    def _keep(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["fake"] = params

    def _answer(self, model: Any, params: dict[str, Any], context: dict[str, Any], **_: Any):
        name, host = model.name, params["context"]["client_region"]
        self.calls.append((name, context["fake"]))
        status, answer = 200, {}
        try:
            if name in self.at:
                self.at[name]()
            if self.region in {"", host}:
                answer = getattr(self, xform_name(name))(**context["fake"])
                if name == "RunJobFlow":
                    self.region = host
            else:
                answer = {"ListClusters": {"Clusters": []}}[name]
            if name in self.after:
                self.after[name]()
        except AwsError as error:
            status = error.status
            answer = {"Error": {"Code": error.code, "Message": error.message}}
        else:
            if model.output_shape is not None:
                validate_parameters(answer, model.output_shape)
        answer["ResponseMetadata"] = {"HTTPStatusCode": status}
        return AWSResponse(None, status, {}, None), answer

    def run_job_flow(self, **asked: Any) -> dict[str, Any]:
        self._tags = asked["Tags"]
        return {"JobFlowId": "j-1"}

    def list_clusters(self, **_: Any) -> dict[str, Any]:
        return {"Clusters": [{"Id": "j-1"}] if self._tags else []}

    def describe_cluster(self, **_: Any) -> dict[str, Any]:
        state, _step, code, message = self._now()
        reason = {"Code": code, "Message": message} if code else {}
        return {
            "Cluster": {
                "Id": "j-1",
                "Tags": self._tags,
                "Status": {
                    "State": state,
                    "StateChangeReason": reason,
                    "ErrorDetails": self.errors if state.startswith("TERMINATED") else [],
                },
            }
        }

    def list_steps(self, **_: Any) -> dict[str, Any]:
        step = self._now()[1]
        if self.timeline[1:] or (self.timeline and not self.hangs):
            self.timeline.pop(0)
        return {"Steps": [{"Id": "s-1", "Status": {"State": step}}]}

    def _now(self) -> tuple[str, str, str, str]:
        return (*self.timeline[0], "", "") if self.timeline else self.end

    def terminate_job_flows(self, **_: Any) -> dict[str, Any]:
        if self.obeys:
            self.hangs = False
            self.timeline = [("TERMINATING", "CANCELLED")]
            self.end = ("TERMINATED", "CANCELLED", "USER_REQUEST", "Terminated by user request")
        return {}

    def list_supported_instance_types(self, **_: Any) -> dict[str, Any]:
        return {"SupportedInstanceTypes": [{"Type": name} for name in sorted(self.supported)]}

    def get_service_quota(self, QuotaCode: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - AWS' name
        return {"Quota": {"Value": self.quotas[QuotaCode]}}

    def describe_instances(self, **_: Any) -> dict[str, Any]:
        return {"Reservations": [{"Instances": self.in_use}]}

    def describe_subnets(self, SubnetIds: list[str], **_: Any) -> dict[str, Any]:  # noqa: N803
        return {
            "Subnets": [
                {"SubnetId": name, "AvailabilityZone": self.zones[name][0]} for name in SubnetIds
            ]
        }

    def describe_instance_type_offerings(self, **asked: Any) -> dict[str, Any]:
        filters = {one["Name"]: one["Values"] for one in asked["Filters"]}
        wanted = filters["instance-type"]
        return {
            "InstanceTypeOfferings": [
                {"InstanceType": machine, "Location": zone}
                for zone, machines in self.zones.values()
                for machine in sorted(machines.intersection(wanted))
            ]
        }

    def get_ebs_encryption_by_default(self, **_: Any) -> dict[str, Any]:
        return {"EbsEncryptionByDefault": bool(self.disk_key)}

    def get_ebs_default_kms_key_id(self, **_: Any) -> dict[str, Any]:
        return {"KmsKeyId": self.disk_key}

    def describe_vpcs(self, **_: Any) -> dict[str, Any]:
        return {"Vpcs": [{"VpcId": name} for name in self.networks]}

    def describe_vpc_endpoints(self, **_: Any) -> dict[str, Any]:
        return {
            "VpcEndpoints": [
                {"VpcEndpointId": name, "VpcEndpointType": "Interface", "State": "available"}
                for name in self.endpoints
            ]
        }

    def get_role(self, RoleName: str) -> dict[str, Any]:  # noqa: N803
        if not self.role:
            raise AwsError("AccessDenied", "may not")
        known = {"Path": "/", "RoleId": "made-up-id-of-a-role", "CreateDate": NOON}
        return {"Role": {**known, "RoleName": RoleName, "Arn": self.role}}

    def simulate_principal_policy(self, **asked: Any) -> dict[str, Any]:
        return {
            "EvaluationResults": [
                {
                    "EvalActionName": action,
                    "EvalResourceName": resource,
                    "EvalDecision": "allowed" if self._may(action, resource) else "implicitDeny",
                }
                for action in asked["ActionNames"]
                for resource in asked["ResourceArns"]
            ]
        }

    def _may(self, action: str, resource: str) -> bool:
        if self.granted is None:
            return True
        return any(
            action in as_list(statement["Action"])
            and any(fnmatchcase(resource, one) for one in as_list(statement["Resource"]))
            for statement in self.granted["Statement"]
        )

    def list_instances(self, **_: Any) -> dict[str, Any]:
        return {"Instances": self.instances}


def machine(hours: float, kind: str = "m7g.xlarge", market: str = "ON_DEMAND") -> dict[str, Any]:
    """A machine that was there for some hours."""
    timeline = {"CreationDateTime": NOON, "EndDateTime": NOON + timedelta(hours=hours)}
    return {
        "Ec2InstanceId": "i-1",
        "InstanceType": kind,
        "Market": market,
        "Status": {"State": "TERMINATED", "Timeline": timeline},
    }
