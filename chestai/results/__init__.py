"""What a model found on a film, in the forms that other systems read: DICOM objects, FHIR resources, HL7 messages."""
