"""What a model found on a film, in forms for others: DICOM objects, FHIR resources, HL7 messages, sentences."""
