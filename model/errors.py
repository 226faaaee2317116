"""Errors meant for people: what is wrong, where, and what to do. They never hold an answer or an id."""


class ModelError(Exception):
    """The model, its features or its settings do not fit; the message says what to change."""


class OutdatedModelError(ModelError):
    """A model is whole, but of a format or an architecture that is no longer read."""
