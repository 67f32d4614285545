// The gradient of a matrix, dy^T x, summed in float32. Included for AMX only, after the `transpose` of flash.h.
//
// A tile register takes 16 inputs of x as pairs of rows, and 16 outputs of dy with 32 rows each, which therefore have to be
// transposed. x is laid out for ROWS rows at a time, which stay in the second-level cache; of dy, 32 outputs at a time.

constexpr int ROWS = 1024;
constexpr ptrdiff_t TILE_SIZE = 512;                              // numbers of a tile, which are contiguous
constexpr ptrdiff_t BLOCK_STRIDE = ROWS / 32 * TILE_SIZE + 32;  // from one block of 16 inputs to the next; no power of two

/// Interleaves 16 numbers of two rows: pair i is even[i], odd[i].
inline __m512i interleaved(const Bf16* even, const Bf16* odd) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even)));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd)));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

/// Rows of a matrix, as many as a multiple of 32; those that are not there are zeros.
struct Rows {
    const Bf16* from;
    size_t stride;
    int count;
    alignas(64) static constexpr Bf16 zeros[16] = {};
    int padded() const { return round_up(count, 32); }
    const Bf16* at(int row, int column) const { return row < count ? from + row * stride + column : zeros; }
    __m512i pair(int row, int column) const { return interleaved(at(row, column), at(row + 1, column)); }
};

/// Lays out the columns `first` to `last` - 1 as blocks of tiles of 16 pairs of rows.
inline void lay_out_pairs(const Rows& rows, int first, int last, Bf16* to) {
    for (int row = 0; row < rows.padded(); row += 2, to += 32)
        for (int column = first; column < last; column += 16)
            _mm512_storeu_si512(to + (column - first) / 16 * BLOCK_STRIDE, rows.pair(row, column));
}
/// Lays out 16 columns as tiles of 16 outputs with 32 rows each, and fetches what will be laid out next.
inline void lay_out_transposed(const Rows& rows, int column, Bf16* to) {
    alignas(64) uint32_t square[16][16];
    for (int row = 0; row < rows.padded(); row += 32, to += TILE_SIZE) {
        for (int i = 0; i < 16; ++i) {
            _mm512_store_si512(square[i], rows.pair(row + 2 * i, column));
            _mm_prefetch(rows.at(row + 2 * i, column + 32), _MM_HINT_T1);
            _mm_prefetch(rows.at(row + 2 * i + 1, column + 32), _MM_HINT_T1);
        }
        transpose(square[0], 16, words(to), 16);
    }
}

size_t weight_gradient_space(const WeightGradient& g) {
    return ((g.last_in - g.first_in) / 16 * BLOCK_STRIDE + 2 * 16 * ROWS) * sizeof(Bf16);
}

/// Adds the products of up to 32 outputs with up to 32 inputs; `Y` and `X` are the numbers of blocks of 16 of each.
template <int Y, int X>
inline void add_products(const Bf16* dy, const Bf16* x, int rows, float* out, ptrdiff_t stride) {
    _tile_loadd(0, out, 4 * stride);
    if (X > 1) _tile_loadd(1, out + 16, 4 * stride);
    if (Y > 1) _tile_loadd(2, out + 16 * stride, 4 * stride);
    if (Y > 1 && X > 1) _tile_loadd(3, out + 16 * stride + 16, 4 * stride);
    for (int row = 0; row < rows; row += 32, x += TILE_SIZE, dy += TILE_SIZE) {
        _tile_loadd(4, dy, 64);
        _tile_loadd(6, x, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (X > 1) _tile_loadd(7, x + BLOCK_STRIDE, 64);
        if (X > 1) _tile_dpbf16ps(1, 4, 7);
        if (Y > 1) _tile_loadd(5, dy + 16 * ROWS, 64);
        if (Y > 1) _tile_dpbf16ps(2, 5, 6);
        if (Y > 1 && X > 1) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, 4 * stride);
    if (X > 1) _tile_stored(1, out + 16, 4 * stride);
    if (Y > 1) _tile_stored(2, out + 16 * stride, 4 * stride);
    if (Y > 1 && X > 1) _tile_stored(3, out + 16 * stride + 16, 4 * stride);
}

void weight_gradient(const WeightGradient& g, std::byte* space) {
    TileShapes().load();
    Bf16 *transposed = reinterpret_cast<Bf16*>(space), *pairs = transposed + 2 * 16 * ROWS;
    for (int first = 0; first < g.rows; first += ROWS) {
        const int count = g.rows - first < ROWS ? g.rows - first : ROWS;
        const Rows x{g.x + size_t(first) * g.n_in, size_t(g.n_in), count}, dy{g.dy + size_t(first) * g.n_out, size_t(g.n_out), count};
        lay_out_pairs(x, g.first_in, g.last_in, pairs);
        for (int out = g.first_out; out < g.last_out; out += 32) {
            const bool two = out + 32 <= g.last_out;
            lay_out_transposed(dy, out, transposed);
            if (two) lay_out_transposed(dy, out + 16, transposed + 16 * ROWS);
            for (int in = g.first_in; in < g.last_in; in += 32) {
                const auto add = in + 32 <= g.last_in ? two ? add_products<2, 2> : add_products<1, 2>
                                                      : two ? add_products<2, 1> : add_products<1, 1>;
                add(transposed, pairs + (in - g.first_in) / 16 * BLOCK_STRIDE, x.padded(), g.d_weight + size_t(out) * g.n_in + in, g.n_in);
            }
        }
    }
    _tile_release();
}
