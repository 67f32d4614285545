"""The endpoints: OpenAI's completions and chat completions, the APIs of 2021 and 2022, the model card."""
