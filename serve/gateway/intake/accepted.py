"""Which objects are films: SOP classes (PS3.4 Annex B) and transfer syntaxes that we take from the wire."""

from chestai.imaging.dicom.syntaxes import DEFLATED, JPEG, NATIVE, RLE

_STORAGE = "1.2.840.10008.5.1.4.1.1"
FILMS = (f"{_STORAGE}.1", f"{_STORAGE}.1.1", f"{_STORAGE}.1.1.1")  # CR, DX for presentation and for processing
SYNTAXES = tuple(syntax for syntax in (*NATIVE, *JPEG, RLE) if syntax != DEFLATED)  # deflated data may be bombs
