"""What a model found on a film, as a message of HL7 version 2.5.1."""
