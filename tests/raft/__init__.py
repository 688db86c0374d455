"""Tests of the Raft core: rules, scripts, properties, and the bugs that others shipped."""
