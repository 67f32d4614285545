"""This package holds the endpoints: OpenAI's API, the APIs of 2021 and 2022, tracing, the lens and the model card."""
