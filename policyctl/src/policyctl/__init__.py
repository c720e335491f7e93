"""Checks a folder of OPA policies and packs it into a signed bundle."""
