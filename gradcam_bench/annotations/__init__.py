"""Formats in which annotations are published, read into the one annotation model; what several data sets share."""
