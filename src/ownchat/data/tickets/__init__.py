"""Tickets: exports of help desks."""
