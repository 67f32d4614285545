// Matrix times rows. One kernel serves decoding and prefill. It reads a block of 16 rows once for a tile of tokens: with
// one token, reading the weights takes the time, with twelve tokens the multiplications do. The result for a token does not
// depend on its tile. Included once per instruction set.

template <class Each>
inline void with_format(Format format, const Each& each) {
    switch (format) {
        case Format::f32: return each(F32{});
        case Format::bf16: return each(BF16{});
        case Format::q8: return each(Q8{});
        case Format::q4: return each(Q4{});
    }
}

void unpack_row(const Matrix& matrix, int row, float* out) {
    with_format(matrix.format, [&](auto format) { format.unpack(matrix, row, out); });
}

template <int N, int M>
void multiply_tile(const Matrix& matrix, const Input& input, const Tile& tile, int block, const float* bias, bool add,
                   float* out, ptrdiff_t stride) {
    const size_t at = size_t(tile.first) * input.groups;
    const uint8_t* x = input.data + at * GROUP * traits(input.format).bits / 8;
    const float* scales = input.scales + at;
    const int32_t* offsets = input.offsets + 2 * at;
    F total[N][M];
    for (int n = 0; n < N; ++n)
        for (int m = 0; m < M; ++m) total[n][m] = bias ? load(bias + (block + n) * BLOCK) : set(0.0f);
    with_format(matrix.format, [&](auto format) { format.multiply(matrix, block, x, scales, offsets, total); });
    for (int m = 0; m < M && m < tile.tokens; ++m)
        for (int n = 0; n < N; ++n) {
            float* to = out + (tile.first + m) * stride + (block + n) * BLOCK;
            store(to, add ? load(to) + total[n][m] : total[n][m]);
        }
}

/// All blocks from first to last - 1 times a tile of M tokens. With several tokens, BLOCKS of them share each read of an
/// input.
template <int M>
void multiply_run(const Matrix& matrix, const Input& input, const Tile& tile, int first, int last, const float* bias,
                  bool add, float* out, ptrdiff_t stride) {
    constexpr int N = M > 1 ? BLOCKS : 1;
    int block = first;
    for (; block + N <= last; block += N) multiply_tile<N, M>(matrix, input, tile, block, bias, add, out, stride);
    for (; block < last; ++block) multiply_tile<1, M>(matrix, input, tile, block, bias, add, out, stride);
}

void matmul(const Matrix& matrix, const Input& input, int first, int last, const float* bias, bool add, float* out,
            ptrdiff_t stride) {
    for (int index = 0; index * TILE < input.tokens; ++index) {
        const Tile tile(input, index);
        switch (tile.size) {
            case 1: multiply_run<1>(matrix, input, tile, first, last, bias, add, out, stride); break;
            case 2: multiply_run<2>(matrix, input, tile, first, last, bias, add, out, stride); break;
            case 4:
                if constexpr (TILE >= 4) multiply_run<4>(matrix, input, tile, first, last, bias, add, out, stride);
                break;
            case 8:
                if constexpr (TILE >= 8) multiply_run<8>(matrix, input, tile, first, last, bias, add, out, stride);
                break;
            case 12:
                if constexpr (TILE >= 12) multiply_run<12>(matrix, input, tile, first, last, bias, add, out, stride);
                break;
        }
    }
}
