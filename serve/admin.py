"""Commands for the operator of the endpoint: `python -m serve.admin COMMAND [key=value ...]`.

verify-audit [SEQUENCE:HASH]: checks the audit chain, also against an anchor stored elsewhere. Prints the number of
    rows and the anchor of the last one; exit status 1 and the first faulty sequence number if the chain is broken.
purge: deletes once what is older than `state.retention_days`; the endpoint does the same every hour.
import-scores: records in the worklist what `score.model` has scored offline (`python -m pipelines.score`).
retry-deliveries [DESTINATION]: queues what the gateway has given up for a destination, or for all, again.
first-key: creates an admin and prints its API key, if no key of an admin works: for the first start where nobody sees
    what the endpoint prints, and for when the last key has expired.
"""

import re
import sys
from datetime import timedelta
from functools import partial

from sqlalchemy.exc import DBAPIError

from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.clock import now
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from serve.auth.bootstrap import create_first_admin
from serve.db.audit import AuditEvent, append_event, verify_chain
from serve.db.database import error_summary, open_existing
from serve.db.leftovers import Leftovers
from serve.db.retention import describe_counts, purge
from serve.gateway.db.deliveries import retry_dead
from serve.storage.image_store import ImageStore

USAGE = (
    "usage: python -m serve.admin (verify-audit [SEQUENCE:HASH] | purge | import-scores | "
    "retry-deliveries [DESTINATION] | first-key) [key=value ...]"
)


def verify_audit(config: Config, screen: Screen, anchor: tuple[int, str] | None = None) -> None:
    """Checks the audit chain and exits with status 1 if it is broken.

    Raises:
        UserError: The database does not exist or cannot be read.
    """
    database = open_existing(config)
    try:
        check = verify_chain(database, anchor)
    except DBAPIError as error:
        raise UserError(f"state.url={database.name} cannot be read: {error_summary(error)}") from error
    finally:
        database.close()
    if check.broken_at is not None:
        screen.say(f"audit: broken at {check.broken_at}: {check.reason}; {check.rows} rows before it are whole")
        sys.exit(1)
    screen.say(f"audit: {check.rows} rows are whole; the last is {check.rows}:{check.hash}")


def purge_once(config: Config, screen: Screen) -> None:
    """Deletes everything older than `state.retention_days` and prints the counts.

    Raises:
        UserError: No retention is configured, or the database does not exist or cannot be used.
    """
    days = config.state.retention_days
    if days is None:
        raise UserError("state.retention_days is null: say after how many days images go")
    database, before = open_existing(config), now() - timedelta(days=days)
    try:
        counts = purge(database, before, "system", ImageStore(Lake(config.lake)).remove)
        files = Leftovers(config).purge(database, before, "system")
    except DBAPIError as error:
        raise UserError(f"state.url={database.name} cannot be used: {error_summary(error)}") from error
    finally:
        database.close()
    deleted = f"{describe_counts(counts)}, {describe_counts(files)}"
    screen.say(f"retention: {deleted}: all from before {before:%Y-%m-%d %H:%M} UTC")


def import_offline_scores(config: Config, screen: Screen) -> None:
    """Fills the worklist and prints the number of images. Raises as `import_scores`."""
    from serve.inference.lake_scores import (
        import_scores,  # loads torch and MLflow, which the other commands do not need
    )

    screen.say(f"worklist: {import_scores(config, screen):,} images of offline scoring recorded")


def retry_deliveries(config: Config, screen: Screen, destination: str | None = None) -> None:
    """Queues what was given up again, and prints how many deliveries that were.

    Raises:
        UserError: There is no such destination, or the database does not exist or cannot be used.
    """
    if destination is not None and destination not in config.gateway.destinations:
        raise UserError(f"gateway.destinations has no {destination}: give its settings, or name no destination")
    database = open_existing(config)
    try:
        with database.write_session() as session:
            count = retry_dead(session, destination)
            what = AuditEvent(actor="system", action="results.retried", detail={"to": destination, "deliveries": count})
            append_event(session, what)
    except DBAPIError as error:
        raise UserError(f"state.url={database.name} cannot be used: {error_summary(error)}") from error
    finally:
        database.close()
    screen.say(f"gateway: {count:,} deliveries wait again; `python -m serve.gateway` sends them")


def first_key(config: Config, screen: Screen) -> None:
    """Creates the first admin and prints its key. Raises as `create_first_admin`."""
    if not create_first_admin(config, screen.say):
        screen.say("there is an admin with a key that works: such admins make keys by POST /keys")


def _run(words: list[str]) -> None:
    """Runs the command that the first word names; a wrong word exits with status 1 and the usage."""
    match words:
        case ["-h" | "--help"]:
            print(f"{USAGE}\n\n{__doc__}")
        case ["verify-audit", anchor, *overrides] if found := re.fullmatch(r"(\d+):([0-9a-f]{64})", anchor):
            main("serve.admin", partial(verify_audit, anchor=(int(found[1]), found[2])), overrides)
        case ["verify-audit", *overrides]:
            main("serve.admin", verify_audit, overrides)
        case ["purge", *overrides]:
            main("serve.admin", purge_once, overrides)
        case ["import-scores", *overrides]:
            main("serve.admin", import_offline_scores, overrides)
        case ["retry-deliveries", destination, *overrides] if "=" not in destination:
            main("serve.admin", partial(retry_deliveries, destination=destination), overrides)
        case ["retry-deliveries", *overrides]:
            main("serve.admin", retry_deliveries, overrides)
        case ["first-key", *overrides]:
            main("serve.admin", first_key, overrides)
        case _:
            sys.exit(USAGE)


if __name__ == "__main__":
    _run(sys.argv[1:])
