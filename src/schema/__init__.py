"""What is said: GraphQL types, inputs, payloads, scalars and paging."""
