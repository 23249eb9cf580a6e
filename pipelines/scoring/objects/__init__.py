"""What was found on the DICOM films of a scored corpus, as the files of hospitals: DICOM objects, FHIR Bundles."""
