"""What a model found on a film, as FHIR resources (R4 or R5)."""
