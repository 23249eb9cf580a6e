"""Storage commitment (PS3.4 Annex J): who keeps which objects, for what we receive and for what we send."""
