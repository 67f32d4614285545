"""From a model to tokens: sampling, the key-value cache, the engine that runs many requests at once."""
