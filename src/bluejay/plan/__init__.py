"""`bluejay plan`: the memory, time and money that a training run will need."""
