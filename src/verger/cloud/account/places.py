"""Where a run's data is: each place is looked up, not believed, before anything is created."""

from dataclasses import dataclass
from typing import Any

from verger.cloud.account.buckets import check_buckets, check_store
from verger.cloud.account.stack import Stack, find_stack
from verger.errors import InputError, UsageError
from verger.store.location import Location, bucket_and_key, check_apart
from verger.store.regions import check_endpoint
from verger.store.session import make_session


@dataclass(frozen=True)
class Place:
    """Where a run happens: a session of boto3 for its region, and the stack there."""

    session: Any
    stack: Stack


def find_place(source: Location, output: Location) -> Place:
    """Find the region of a run, and see that all of it is inside the European Union.

    Raises:
        UsageError: one of them is not on S3, or the output lies inside the input.
        RefusedError: a bucket or an endpoint is not inside the European Union.
        InputError: a bucket is missing, forbidden, in another region, or not one of the stack's.
        SetupError: there are no credentials, or no stack.
    """
    for place in (source, output):
        if not place.is_s3:
            raise UsageError(
                f"{place} is not on S3.", "A cluster reads s3://bucket/prefix: verger cloud upload"
            )
    check_apart(source, output)
    session = make_session()
    check_store()
    buckets = [bucket_and_key(place.path)[0] for place in (source, output)]
    regions = check_buckets(session, buckets)
    region = regions[buckets[0]]
    session = make_session(region)
    for service in ("emr", "scheduler", "s3"):
        check_endpoint(session.client(service).meta.endpoint_url, region)
    stack = find_stack(session)
    # Code and logs go there.
    regions |= check_buckets(session, [stack.bucket])
    for bucket, where in regions.items():
        if where != region:
            raise InputError(
                f"The bucket {bucket} is in {where}, the images are in {region}.",
                "Machines read and write in their own region only.",
            )
        if bucket not in stack.buckets:
            raise InputError(
                f"Jobs may not use the bucket {bucket}.",
                f"Let them: {stack.init_command(bucket)}",
            )
    return Place(session, stack)
