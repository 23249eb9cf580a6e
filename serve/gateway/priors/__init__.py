"""Earlier films of a patient, fetched from the hospital's archive when a reader asks for them."""
