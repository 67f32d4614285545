// How the tokens of an input are divided into tiles. Included once per instruction set, after its lanes.

/// The size to which a tile of `n` tokens is padded, one of those for which there is a matrix kernel.
constexpr int padded_tile(int n) { return n <= 2 ? n : n <= 4 ? 4 : n <= 8 ? 8 : 12; }

struct Tile {
    int first, tokens, size;  // size is padded
    explicit Tile(const Input& input, int index)
        : first(index * TILE),
          tokens(input.tokens - first < TILE ? input.tokens - first : TILE),
          size(padded_tile(tokens)) {}
};
