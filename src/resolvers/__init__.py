"""Who answers: the root fields by area, the loaders, the context."""
