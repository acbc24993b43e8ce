"""How models write reasoning and tool calls as text, and the incremental splitter that reads it back."""
