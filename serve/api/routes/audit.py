"""The check of the audit chain over HTTP."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter

from serve.api.openapi import STATE_RESPONSES
from serve.api.services import ServicesDep
from serve.api.state import DATABASE_ERRORS, database_unavailable
from serve.db.audit import verify_chain
from serve.schemas.operations import AuditCheck

router = APIRouter(tags=["operations"])

CHECK_EXECUTOR = ThreadPoolExecutor(1, "audit")  # it reads every row: one check at a time, in no thread of others


@router.get("/audit", summary="Check the audit chain", responses=STATE_RESPONSES)
async def check_audit(services: ServicesDep) -> AuditCheck:
    """Whether all rows are as they were written. Only an anchor stored elsewhere reveals a chain rewritten whole."""
    database = services.state.store.database
    try:
        check = await asyncio.get_running_loop().run_in_executor(CHECK_EXECUTOR, verify_chain, database)
    except DATABASE_ERRORS as error:
        raise database_unavailable() from error
    return AuditCheck(**vars(check))
