"""How a corpus is built: tasks named by a hash of what decides them, and the executors that run them."""
