"""Plafond: a GraphQL API server for SaaS billing."""

VERSION = "0.1.0"
