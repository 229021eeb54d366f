"""The embedded default: small models made with a planted truth about emoji, to calibrate with."""
