"""The check of the audit chain over HTTP."""

from pathlib import Path

from sqlalchemy import text

from tests.serve.support.job_site import JobSite


def test_admins_check_the_audit_chain(tmp_path: Path) -> None:
    site = JobSite(tmp_path)
    status, check = site.request("GET", "/audit", "chief")
    assert (status, check["broken_at"], check["rows"]) == (200, None, 1), "the check itself is in the audit"
    with site.services.state.store.database.write_session() as session:
        session.execute(text("DROP TRIGGER audit_update"))
        session.execute(text("UPDATE audit SET actor = 'bob' WHERE sequence = 1"))
    status, check = site.request("GET", "/audit", "chief")
    assert (status, check["broken_at"], check["rows"]) == (200, 1, 0) and check["reason"]


def test_only_admins_check_it(tmp_path: Path) -> None:
    assert JobSite(tmp_path).request("GET", "/audit", "ann")[0] == 403
