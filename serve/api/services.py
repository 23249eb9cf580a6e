"""The services that routes use; they are built once for each process."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Request

from chestai.config.schema import Auth, Config
from chestai.imaging.preprocess import Grey
from chestai.lake.lake import Lake
from chestai.results.report_text.drafter import Drafter
from serve.api.admission import AdmissionControl
from serve.api.state import StateAccess
from serve.auth.api_keys import ApiKeyAuthenticator
from serve.auth.authenticator import Authenticator
from serve.auth.oidc import OidcVerifier
from serve.auth.oidc_sign_in import OidcSignIn
from serve.auth.rate_limit import RateLimiter
from serve.auth.refusals import RefusalLog
from serve.auth.sessions import SessionAuthenticator
from serve.db.database import Database
from serve.db.store import Store
from serve.gateway.intake.folder import Intake, gateway_folder
from serve.inference.batch_jobs import JobRunner
from serve.inference.image_decoder import ImageDecoder
from serve.inference.memory_budget import MemoryBudget
from serve.inference.predictor import ScoreResult
from serve.inference.rollout import Canary, Shadow
from serve.inference.scorer import Scorer
from serve.monitoring.client import MonitorClient
from serve.monitoring.reporter import EventReporter
from serve.storage.allowed_prefixes import check_prefixes
from serve.storage.image_store import ImageStore
from serve.storage.pseudonyms import load_pseudonyms
from serve.storage.stored_images import StoredImages


@dataclass(frozen=True)
class ModelRouter:
    """The served version, and the canary and shadow next to it, if there are any."""

    scorer: Scorer
    canary: Canary | None = None
    shadow: Shadow | None = None

    async def score(self, image_id: str, grey: Grey) -> ScoreResult:
        """Scores a received image, by the canary if the image belongs to its share.

        Raises:
            OodError: It is not a frontal chest radiograph.
            ApiError: The model is busy or unavailable.
        """
        result = None if self.canary is None else await self.canary.score(image_id, grey)
        return await self.scorer.score(grey) if result is None else result


@dataclass(frozen=True)
class AccessControl:
    """Authentication and rate limits: of users by name, and of callers without a valid credential by address.

    sign_in: None if nobody can sign in at an identity provider.
    """

    authenticator: Authenticator
    sessions: SessionAuthenticator
    sign_in: OidcSignIn | None
    user_limiter: RateLimiter
    address_limiter: RateLimiter


@dataclass(frozen=True)
class Services:
    """The services of one process.

    jobs: None if the endpoint runs no batch jobs. intake: None if it neither takes films nor tells of them.
    """

    config: Config
    model: ModelRouter
    state: StateAccess
    access: AccessControl
    admission: AdmissionControl
    monitor: MonitorClient
    reporter: EventReporter
    decoder: ImageDecoder
    memory: MemoryBudget
    stored_images: StoredImages
    drafter: Drafter
    jobs: JobRunner | None = None
    intake: Intake | None = None


def build_services(
    config: Config,
    *,
    scorer: Scorer,
    monitor: MonitorClient,
    jobs: JobRunner | None = None,
    canary: Scorer | None = None,
    shadow: Scorer | None = None,
) -> Services:
    """Builds the services.

    Raises:
        UserError: The config names a database, token keys, a client secret or prefixes that cannot be used.
    """
    check_prefixes(config.serve.prefixes)
    limits, store = config.serve, Store(config)
    reporter, deadline_s = EventReporter(monitor, store.counts), limits.deadline_seconds
    memory = MemoryBudget(limits.memory_mb * 2**20)
    images = ImageStore(Lake(config.lake))
    return Services(
        config=config,
        model=ModelRouter(
            scorer,
            Canary(canary, limits.canary.share, deadline_s, reporter.record_canary) if canary else None,
            Shadow(shadow, deadline_s, memory, store.save_shadow, reporter.record_shadow) if shadow else None,
        ),
        state=StateAccess(store, images, load_pseudonyms(config), RefusalLog(store.save_events)),
        access=_build_access(config.auth, store.database),
        admission=AdmissionControl(limits.admission_slots, deadline_s),
        monitor=monitor,
        reporter=reporter,
        decoder=ImageDecoder(),
        memory=memory,
        stored_images=StoredImages(config, images),
        drafter=Drafter(config.report.llm),
        jobs=jobs,
        intake=Intake(gateway_folder(config)) if config.gateway.stow or config.gateway.fhir else None,
    )


def _build_access(auth: Auth, database: Database) -> AccessControl:
    tokens = OidcVerifier(auth.jwt) if auth.jwt.secret or auth.jwt.jwks else None
    sessions = SessionAuthenticator(database, timedelta(minutes=auth.session.idle_minutes))
    return AccessControl(
        Authenticator(ApiKeyAuthenticator(database), sessions, tokens, auth.required),
        sessions,
        OidcSignIn(auth.oidc, tokens) if auth.oidc.client_id and tokens is not None else None,
        RateLimiter(auth.requests_per_minute, auth.burst),
        RateLimiter(auth.requests_per_minute, auth.burst),
    )


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
