"""What a model found on the films of a study, as FHIR resources (R4 or R5)."""
