"""What a model found on a film, as DICOM objects: a structured report, a picture and a machine-readable heatmap."""
