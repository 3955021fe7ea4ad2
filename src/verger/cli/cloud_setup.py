"""The commands that set up, look at, try and erase what verger has in an account."""

import csv
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from verger.cli import console
from verger.cli.options import Arch, Debug, Json, Region
from verger.cli.reporting import reporting
from verger.errors import SetupError, UsageError, VergerError
from verger.progress import TIME
from verger.store.location import Location, bucket_and_key
from verger.store.session import make_session

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def init(
    *,
    bucket: Annotated[str, typer.Option(help="The bucket to make; a name nobody else has.")],
    region: Region = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A bucket of yours that jobs may use too; repeat it.")
    ] = None,
    email: Annotated[str, typer.Option(help="Who is told when the month gets expensive.")] = "",
    monthly_usd: Annotated[float, typer.Option(help="What is expensive, in dollars.", min=1)] = 10,
    encrypt_disks: Annotated[
        bool,
        typer.Option("--encrypt-disks", help="Have AWS encrypt all new disks of the account here."),
    ] = False,
    bring_your_own: Annotated[
        Path | None,
        typer.Option(help="A JSON file of what is there already: subnets, roles, bucket, tags."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Make the bucket, roles, network and budget that a cluster needs; again to change them."""
    with reporting(debug):
        from verger.cloud.account import stack
        from verger.cloud.account.owned import NOTHING_OWNED, read_owned
        from verger.cloud.money import budget

        owned = read_owned(bring_your_own) if bring_your_own else NOTHING_OWNED
        session = make_session(region)
        with console.stage("stack"):
            if encrypt_disks:
                stack.encrypt_disks(session)
            made = stack.create_stack(session, bucket, others=also or (), owned=owned)
            if email:
                budget.set_budget(session, made.account, email, monthly_usd)
        console.say(f"verger is ready in {made.region}, account {made.account}.")
        console.say(f"Bucket: {made.bucket}; jobs may use {', '.join(made.buckets)}")
        if email:
            console.say(
                f"{email} is told when the month passes {monthly_usd:,.2f} USD, of the whole "
                "account."
            )
        else:
            console.say("Nobody is told when the month gets expensive: give --email.")
        if encrypt_disks:
            console.say(f"AWS encrypts all new disks of the account in {made.region}.")
        if made.disk_key:
            console.say(
                f"Disks are encrypted with {made.disk_key}; its policy must let EMR use it."
            )
        console.say(
            "Only what the bucket holds costs anything. Look at the account before the first run: "
            f"verger cloud check --region {made.region}. Take it all away: "
            f"verger cloud destroy --region {made.region}"
        )


def destroy(
    *,
    region: Region = None,
    bucket: Annotated[
        str | None, typer.Option(help="verger's bucket, where the stack that knew it is gone.")
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Erase the images and all that was made from them.")
    ] = False,
    place: Annotated[
        list[str] | None,
        typer.Option(help="With --purge, s3://bucket/prefix to erase as well; repeat it."),
    ] = None,
    listing: Annotated[
        Path | None, typer.Option("--list", help="With --purge, a CSV file of all that is erased.")
    ] = None,
    yes: Yes = False,
    debug: Debug = False,
) -> None:
    """Remove what `init` made, or what an earlier `destroy` left of it.

    The bucket stays with its data, unless --purge erases both.
    """
    with reporting(debug):
        from verger.cloud.account import stack
        from verger.cloud.account.erase import delete_bucket, is_gone

        if (place or listing) and not purge:
            raise UsageError("--place and --list go with --purge.", "Add --purge to erase data.")
        if listing:
            _check_writable(listing)
        session = make_session(region)
        where: str = session.region_name
        kept = stack.kept_bucket(session)
        if kept is None and bucket is not None:
            kept = stack.Kept(bucket, is_ours=True, own="")
        if kept and bucket not in {None, kept.bucket}:
            raise UsageError(
                f"verger's bucket in {where} is {kept.bucket}, not {bucket}.", "Leave out --bucket."
            )
        if purge and kept is None:
            raise SetupError(
                f"There is no stack of verger in {where} that names a bucket.",
                "Name it: --bucket NAME, or leave out --purge.",
            )
        if running := stack.running_clusters(session):
            raise SetupError(
                f"{len(running)} clusters still run: {', '.join(running)}.", "verger cloud stop"
            )
        places = [*(place or ())]
        if purge and kept and not is_gone(session, kept.bucket):
            places.insert(0, f"s3://{kept.bucket}" + ("" if kept.is_ours else f"/{kept.own}"))
        if places:
            _purge(session, places, listing, yes)
        elif not yes:
            typer.confirm(f"Remove verger's stack in {where}?", abort=True)
        with console.stage("unmake"):
            stack.delete_stack(session)
        gone = bool(purge and kept and kept.is_ours)
        if gone and kept:
            with console.progress() as shown:
                delete_bucket(session, kept.bucket, shown, TIME)
        budget = _delete_budget(session)
        console.say("The stack is gone, and what EMR left in its network.")
        if kept:
            console.say(f"The bucket {kept.bucket} {'is gone' if gone else 'stays'}.")
        console.say(budget)


def check(
    *, region: Region = None, arch: Arch = "arm64", json: Json = False, debug: Debug = False
) -> None:
    """Look for what would stop a run, before the first euro; nothing is made or changed.

    Ends with exit code 5 or 6 where something does.
    """
    with reporting(debug):
        from verger.cloud.jobs.check import check_account, raise_first

        session = make_session(region)
        with console.stage("check"):
            findings = list(check_account(session, arch))
        if json:
            console.say(dumps([asdict(one) for one in findings], indent=2))
        else:
            table = console.table("", "", "Found", "To do")
            for one in findings:
                row = (one.level, one.what, one.found, one.remedy)
                table.add_row(*(Text(text) for text in row))
            console.stdout.print(table)
        raise_first(findings)


def smoke(
    *,
    region: Region = None,
    arch: Arch = "arm64",
    max_cost: Annotated[float, typer.Option(help="The ceiling in euros.", min=0.01)] = 0.5,
    transcript: Annotated[
        Path, typer.Option(help="Where it is written down, without numbers of accounts.")
    ] = Path("verger-smoke.txt"),
    debug: Debug = False,
) -> None:
    """Run 200 rendered images on a cluster of one worker, compare, and remove everything.

    It takes about a quarter of an hour and should cost less than 0.15 EUR.
    """
    with reporting(debug):
        from verger import chain
        from verger.cloud.jobs import smoke as smoke_test
        from verger.version import VERSION

        session = make_session(region)
        _check_writable(transcript)
        with console.progress() as shown:
            kept = smoke_test.Transcript(shown, TIME)
            kept.note(f"verger {VERSION}, {session.region_name}, {arch}, {TIME.now():%Y-%m-%d}")
            try:
                images = smoke_test.smoke(
                    session, chain.run, kept, arch=arch, max_cost=max_cost, time=TIME
                )
            finally:
                transcript.write_text("\n".join(kept.lines) + "\n", encoding="utf-8")
        console.say(
            f"{images} images on a cluster give what they give here. {transcript} has it all; "
            "send it to the project, which has no recorded run yet."
        )


def policy(
    who: Annotated[
        Literal["run", "setup"], typer.Argument(help="run, or setup for init and destroy.")
    ] = "run",
    *,
    bucket: Annotated[
        list[str] | None, typer.Option(help="A bucket of the jobs; repeat it.")
    ] = None,
    account: Annotated[str, typer.Option(help="The number of the account.")] = "*",
    debug: Debug = False,
) -> None:
    """Print the policy of AWS with the least rights that somebody needs."""
    with reporting(debug):
        from verger.cloud.account.permissions import policy as policy_for

        console.say(dumps(policy_for(who, tuple(bucket or ()), account), indent=2))


def _check_writable(file: Path) -> None:
    """Refuse a file before that is done which it would tell of."""
    try:
        file.open("a").close()
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror}.", "Give another file."
        ) from error


def _delete_budget(session: Any) -> str:
    """Take the budget away; what to say of it."""
    from verger.cloud.account.limits import who_asks
    from verger.cloud.money.budget import delete_budget

    try:
        delete_budget(session, who_asks(session)["Account"])
    except VergerError as error:
        return (
            f"Whether there is a budget is not known ({error.message}) It costs nothing; whoever "
            "may look finds it in the console, under Budgets."
        )
    return "The budget is gone."


def _purge(session: Any, wanted: list[str], listing: Path | None, yes: bool) -> None:
    """Erase the objects of places, after asking; say what was erased."""
    from verger.cloud.account.buckets import check_buckets
    from verger.cloud.account.erase import by_folder, erase, list_versions

    places = [Location.parse(text) for text in dict.fromkeys(wanted)]
    for place in places:
        if not place.is_s3:
            raise UsageError(f"{place} is not on S3.", "Write s3://bucket/prefix.")
    check_buckets(session, [bucket_and_key(place.path)[0] for place in places])
    for place in places:
        with console.stage("count"):
            count = sum(1 for _ in list_versions(session, place))
        console.say(f"{place}: {count:,} objects and versions")
    if not yes:
        typer.confirm("Erase them for good? There is no way back.", abort=True)
    rows: list[tuple[object, ...]] = [("bucket", "key", "version", "bytes")]
    for place in places:
        with console.progress() as shown:
            erased = erase(session, place, shown)
        name = bucket_and_key(place.path)[0]
        rows += [(name, *version) for version in erased]
        for folder, (count, size) in by_folder(erased).items():
            console.say(
                f"Erased s3://{name}/{folder}: {count:,} objects and versions, {size:,} bytes"
            )
    if listing is not None:
        with listing.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        console.say(f"All of them are listed in {listing}.")
