"""Errors meant for people: what is wrong, where, and what to do. They never hold an answer or an id."""


class ModelError(Exception):
    """The model, its features or its settings do not fit; the message says what to change."""
