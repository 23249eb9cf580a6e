"""Where a registered version stands: is it the champion, and if not, why?"""

from chestai.model.registry import PASSED, Registry


def why_not_champion(registry: Registry, version: int) -> str | None:
    """Return why a version is not the champion, to follow "not champion: "; None if it is.

    Raises:
        UserError: There is no such version.
        MlflowException: The registry did not answer.
    """
    champion, gate = registry.champion(), registry.gate(version)
    if champion == version:
        return None
    if gate is None:
        return "the gate never judged it"
    if gate != PASSED:
        return f"the gate refused it, {gate}"
    return "it passed the gate, but was not promoted" if champion is None else f"version {champion} is"
