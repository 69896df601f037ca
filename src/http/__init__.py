"""HTTP and WebSocket: what surrounds GraphQL."""
