"""What a training run needs before it starts: memory, time, money."""
