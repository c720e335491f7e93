"""Tests of an installation: run by Molecule, or by hand against the lab (see conftest.py)."""
