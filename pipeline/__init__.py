"""The Beam pipeline: sources, the five stages, the report. The only package that imports apache_beam."""
