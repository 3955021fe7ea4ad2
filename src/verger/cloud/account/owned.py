"""What a company has already and lets no tool make: `verger cloud init --bring-your-own FILE`."""

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from verger.errors import InputError, UsageError


class Owned(BaseModel, extra="forbid", frozen=True):
    """What is there already; what is left out is made.

    `docs/howto/own-network.md` says what each has to allow.
    """

    bucket: bool = False
    """Whether the bucket is there already; its rules are left as they are then."""
    prefix: str = Field(default="", pattern=r"^([A-Za-z0-9!_.*'()-]+/)*$")
    """Before the keys of code and logs in the bucket, with a slash at its end."""
    subnets: tuple[str, ...] = ()
    """Ids of subnets with a way to S3, in as many zones as there are."""
    service_role: str = ""
    """Name of the role of EMR itself."""
    instance_profile: str = ""
    """Name of the instance profile of machines; its role has the same name."""
    scheduler_role: str = Field(default="", pattern=r"^(arn:.+)?$")
    """ARN of the role that may terminate clusters with verger's tag."""
    permissions_boundary: str = Field(default="", pattern=r"^(arn:.+)?$")
    """ARN of the policy that bounds the roles that are made."""
    kms_key: str = Field(default="", pattern=r"^(arn:.+)?$")
    """ARN of the key with which the account encrypts new disks."""
    tags: dict[str, str] = {}
    """More tags, of all that is made and of clusters."""

    @property
    def parameters(self) -> dict[str, str]:
        """Those of the stack's template."""
        return {
            "OwnBucket": "yes" if self.bucket else "no",
            "OwnSubnets": ",".join(self.subnets),
            "OwnServiceRole": self.service_role,
            "OwnInstanceProfile": self.instance_profile,
            "OwnSchedulerRole": self.scheduler_role,
            "PermissionsBoundary": self.permissions_boundary,
            "Prefix": self.prefix,
            "ClusterTags": ",".join(f"{key}={value}" for key, value in self.tags.items()),
        }


NOTHING_OWNED = Owned()


def read_owned(file: Path) -> Owned:
    """Read a file of JSON with the fields of `Owned`.

    Raises:
        InputError: it cannot be read.
        UsageError: a field is unknown, or has a wrong value; named.
    """
    try:
        owned = Owned.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.", "Give a file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UsageError(
            f"{file}: {where}: {first['msg']}.", f"It may have {', '.join(Owned.model_fields)}."
        ) from error
    if any(set(text) & set(",=") for tag in owned.tags.items() for text in tag):
        raise UsageError(f"{file}: tags: one has a comma or an equals sign.", "Leave it out.")
    return owned
