"""What all sources share: opening, unpacking, decoding and parsing files that nobody here wrote."""
