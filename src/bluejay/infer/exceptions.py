"""What can go wrong with a model that runs; each message says in one sentence what is wrong and what would be right."""


class InferenceError(ValueError):
    """A model could not do what it was asked to do."""


class PromptError(InferenceError):
    """A prompt, or a list of them, is not of a form that a model reads."""


class ContextLengthError(PromptError):
    """A prompt leaves no room for an answer in the model's context."""


class TokenError(PromptError):
    """A token id is outside the model's vocabulary."""


class ChatTemplateError(PromptError):
    """A model has no chat template, or its template rejects the messages."""


class CacheError(InferenceError):
    """The key-value cache is too small for a request, or memory too short for the cache."""


class LogitsError(InferenceError):
    """A model computes logits that are not numbers."""


class ModelClosedError(InferenceError):
    """A model was used after it was closed."""
