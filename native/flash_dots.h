// The products of flash.h with AVX-512: dot products of pairs, each of a pair of x with 16 pairs of w.

constexpr int TILE_QUERIES = 6, TILE_DIMENSIONS = 8, BACKWARD_QUERIES = 48;

template <int M, int N, class Each>
inline void tile(const Bf16* x, ptrdiff_t row, const Operand& w, int pairs, int block, const Each& each) {
    F sum[M][N];
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) sum[m][n] = set(0.0f);
    const Bf16* from = w.w + block * w.block;
    for (int p = 0; p < pairs; ++p, from += w.pair)
        for (int m = 0; m < M; ++m)
            for (int n = 0; n < N; ++n) sum[m][n] = dot_bf16(sum[m][n], from + n * w.block, x + m * row + 2 * p);
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) each(m, block + n, sum[m][n]);
}

/// Multiplies M rows of x with `blocks` blocks of w and passes the results to `each(m, block, sums)`.
template <int M, class Each>
inline void product(const Bf16* x, ptrdiff_t row, const Operand& w, int pairs, int blocks, const Each& each) {
    constexpr int N = M == TILE_QUERIES ? 4 : 3;  // 24 sums, N blocks of w and 1 of x fit the 32 registers
    int block = 0;
    for (; block + N <= blocks; block += N) tile<M, N>(x, row, w, pairs, block, each);
    if (N > 3 && blocks - block == 3) tile<M, 3>(x, row, w, pairs, block, each);
    if (blocks - block == 2) tile<M, 2>(x, row, w, pairs, block, each);
    if (blocks - block == 1) tile<M, 1>(x, row, w, pairs, block, each);
}
