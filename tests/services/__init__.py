"""Tests of the services, on both engines where SQL is touched."""
