"""Model servers as the agent sees them: a protocol, a streaming client, routing and health."""
