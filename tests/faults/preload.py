"""What the processes of the fault tests have loaded before they are forked: what they would all do first."""

from sqlalchemy.orm import configure_mappers

from plafond import cli
from plafond.api import find_faults

from .fire import list_documents
from .senders import DOCUMENTS

__all__ = ["cli"]

configure_mappers()
for document in (*list_documents(), *DOCUMENTS):
    assert not find_faults(document)
