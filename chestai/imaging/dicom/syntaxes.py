"""The transfer syntaxes that films come in (PS3.5 Section 10, PS3.6 Annex A); without a DICOM library."""

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)

_JPEG = "1.2.840.10008.1.2.4."
DCT = (f"{_JPEG}50", f"{_JPEG}51")  # JPEG baseline and extended
LOSSLESS = (f"{_JPEG}57", f"{_JPEG}70")
JPEG_LS = (f"{_JPEG}80", f"{_JPEG}81")
JPEG_2000 = (f"{_JPEG}90", f"{_JPEG}91")
JPEG = (*DCT, *LOSSLESS, *JPEG_LS, *JPEG_2000)
RLE = "1.2.840.10008.1.2.5"
