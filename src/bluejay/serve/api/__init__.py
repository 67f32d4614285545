"""The endpoints: OpenAI's completions and chat, the API of 2021, the model card."""
