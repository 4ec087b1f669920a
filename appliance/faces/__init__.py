"""What is generated from the one schema: payload checks, JSON Schema, OpenAPI, AsyncAPI, ACL, reference."""
