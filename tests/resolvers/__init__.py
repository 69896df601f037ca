"""Root fields: who may, and how lists are paged."""
