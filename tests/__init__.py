"""Tests of s9: one file per source file, plus config, command line and architecture."""
