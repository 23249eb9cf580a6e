"""What the endpoint tells of the gateway's films as FHIR."""
