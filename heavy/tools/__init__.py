"""Tools: the protocol, toolsets, the result cache, the python sandbox, trace tools."""
