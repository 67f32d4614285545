"""From the engine to HTTP: OpenAI's completions API and the web page."""
