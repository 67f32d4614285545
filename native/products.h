// Products of blocks of 16 rows of weights with a tile of tokens, in the formats that do not quantise, and what the
// quantised formats (q8.h, q4.h) share. Included once per instruction set.
//
// Each format is a struct. `multiply` adds the products of N blocks with M tokens to `total`; `unpack` is one row of a
// matrix, which is needed where the head's matrix is also the embedding.

/// Distance at which weights are prefetched. The processor's own prefetcher stops at the end of a page.
constexpr int PREFETCH_BYTES = 4096, PREFETCH_SCALE_BYTES = 512;

struct F32 {
    template <int N, int M>
    static void multiply(const Matrix& matrix, int block, const uint8_t* input, const float*, const int32_t*,
                         F (&total)[N][M]) {
        const float* w = reinterpret_cast<const float*>(matrix.block(block));
        const float* x = reinterpret_cast<const float*>(input);
        for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK, x += M * GROUP)
            for (int k = 0; k < GROUP; ++k) {
                F weights[N];
                for (int n = 0; n < N; ++n) weights[n] = load(w + n * (matrix.block_bytes() / sizeof(float)) + k * BLOCK);
                for (int m = 0; m < M; ++m) {
                    const F value = set(x[m * GROUP + k]);
                    for (int n = 0; n < N; ++n) total[n][m] = total[n][m] + weights[n] * value;
                }
            }
    }
    static void unpack(const Matrix& matrix, int row, float* out) {
        const float* block = reinterpret_cast<const float*>(matrix.block(row / BLOCK));
        for (int i = 0; i < matrix.columns; ++i) out[i] = block[size_t(i) * BLOCK + row % BLOCK];
    }
};

struct BF16 {
    template <int N, int M>
    static void multiply(const Matrix& matrix, int block, const uint8_t* input, const float*, const int32_t*,
                         F (&total)[N][M]) {
        const uint16_t* w = reinterpret_cast<const uint16_t*>(matrix.block(block));
        const uint16_t* x = reinterpret_cast<const uint16_t*>(input);
        const size_t next = matrix.block_bytes() / sizeof(uint16_t);
        for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK, x += M * GROUP)
            for (int k = 0; k < GROUP; k += 2) {
                for (int n = 0; n < N; ++n)
                    __builtin_prefetch(reinterpret_cast<const uint8_t*>(w + n * next + k * BLOCK) + PREFETCH_BYTES);
                for (int m = 0; m < M; ++m)
                    for (int n = 0; n < N; ++n)
                        total[n][m] = dot_bf16(total[n][m], w + n * next + k * BLOCK, x + m * GROUP + k);
            }
    }
    static void unpack(const Matrix& matrix, int row, float* out) {
        const uint16_t* block = reinterpret_cast<const uint16_t*>(matrix.block(row / BLOCK));
        for (int i = 0; i < matrix.columns; ++i)
            out[i] = float_of_bf16(block[size_t(i) / 2 * 2 * BLOCK + 2 * (row % BLOCK) + i % 2]);
    }
};

/// Tokens of a tile whose integer sums are in registers at the same time; each of them has `sums` sums.
constexpr int tokens_at_once(int sums, int tokens) {
    while (sums * tokens > 16 && tokens % 2 == 0) tokens /= 2;
    return tokens;
}

/// Loads the weights that one instruction takes, for each of N blocks, and prefetches later ones on the `first` reading.
template <int N>
inline void read_weights(const Matrix& matrix, const uint8_t* from, Bytes (&weights)[N], bool first = true) {
    for (int n = 0; n < N; ++n) {
        const uint8_t* at = from + n * matrix.block_bytes();
        if (first) __builtin_prefetch(at + PREFETCH_BYTES);
        weights[n] = load_bytes(at);
    }
}

/// Adds the products of four columns with the inputs of H tokens, which are GROUP numbers apart.
template <int N, int H>
inline void add_products(const Bytes (&weights)[N], const int8_t* x, I (&sums)[N][H]) {
    for (int m = 0; m < H; ++m)
        for (int n = 0; n < N; ++n) sums[n][m] = dot(sums[n][m], weights[n], x + m * GROUP);
}

/// Adds the scaled sums of a group or half a group for H tokens, beginning at token `first`. The two scales are multiplied
/// with each other first: in a sum of two products a compiler may fuse either one, so the bits would depend on the tile.
template <int N, int H, int M>
inline void add_scaled(const I (&sums)[N][H], const F (&weight_scales)[N], const float* scales, int first, F (&total)[N][M]) {
    for (int m = 0; m < H; ++m)
        for (int n = 0; n < N; ++n)
            total[n][first + m] = total[n][first + m] + to_float(sums[n][m]) * (weight_scales[n] * set(scales[m]));
}
