"""What a model found on the films of a study, as a message of HL7 version 2.5.1."""
