// Matrix times rows. One kernel serves decoding and prefill: it reads a block of 16 rows once for a tile of tokens, so
// with one token it is a reading of the weights and with twelve it is bound by the multipliers. What is computed for a
// token does not depend on the tile it is in. Included once per instruction set.

/// How far ahead of their use weights are asked for. The processor's own prefetcher stops at the end of a page.
constexpr int AHEAD = 4096, SCALES_AHEAD = 512;

template <int N, int M>
inline void multiply_f32(const Matrix& matrix, int block, const uint8_t* input, F (&total)[N][M]) {
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

template <int N, int M>
inline void multiply_bf16(const Matrix& matrix, int block, const uint8_t* input, F (&total)[N][M]) {
    const uint16_t* w = reinterpret_cast<const uint16_t*>(matrix.block(block));
    const uint16_t* x = reinterpret_cast<const uint16_t*>(input);
    const size_t next = matrix.block_bytes() / sizeof(uint16_t);
    for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK, x += M * GROUP)
        for (int k = 0; k < GROUP; k += 2) {
            for (int n = 0; n < N; ++n)
                __builtin_prefetch(reinterpret_cast<const uint8_t*>(w + n * next + k * BLOCK) + AHEAD);
            for (int m = 0; m < M; ++m)
                for (int n = 0; n < N; ++n)
                    total[n][m] = dot_bf16(total[n][m], w + n * next + k * BLOCK, x + m * GROUP + k);
        }
}

/// Tokens of a tile whose sums of whole numbers stand in registers at a time, each of them `sums` times.
constexpr int at_once(int sums, int tokens) {
    while (sums * tokens > 16 && tokens % 2 == 0) tokens /= 2;
    return tokens;
}

/// The weights that one instruction takes, of each of N blocks; their first reading asks for those to come.
template <int N>
inline void read_weights(const Matrix& matrix, const uint8_t* from, Bytes (&weights)[N], bool first = true) {
    for (int n = 0; n < N; ++n) {
        const uint8_t* at = from + n * matrix.block_bytes();
        if (first) __builtin_prefetch(at + AHEAD);
        weights[n] = load_bytes(at);
    }
}

/// Adds four columns' products with the inputs of H tokens, GROUP numbers apart.
template <int N, int H>
inline void add_products(const Bytes (&weights)[N], const int8_t* x, I (&sums)[N][H]) {
    for (int m = 0; m < H; ++m)
        for (int n = 0; n < N; ++n) sums[n][m] = dot(sums[n][m], weights[n], x + m * GROUP);
}

/// Adds the sums of a group, or of a half of it, of H tokens from `first` on. The scales are multiplied first: of a sum of
/// two products compilers fuse either one, and the bits would depend on the tile.
template <int N, int H, int M>
inline void add_scaled(const I (&sums)[N][H], const F (&weight_scales)[N], const float* scales, int first, F (&total)[N][M]) {
    for (int m = 0; m < H; ++m)
        for (int n = 0; n < N; ++n)
            total[n][first + m] = total[n][first + m] + to_float(sums[n][m]) * (weight_scales[n] * set(scales[m]));
}

template <int N, int M>
inline void multiply_q8(const Matrix& matrix, int block, const uint8_t* input, const float* scales,
                        const int32_t* offsets, F (&total)[N][M]) {
    constexpr int H = at_once(N, M);
    const uint8_t* w = matrix.block(block);
    const int8_t* x = reinterpret_cast<const int8_t*>(input);
    for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK, x += M * GROUP) {
        F weight_scales[N];
        for (int n = 0; n < N; ++n) {
            const uint8_t* of_block = matrix.block_scales(block + n) + group * Matrix::SCALE_BYTES;
            __builtin_prefetch(of_block + SCALES_AHEAD);
            weight_scales[n] = from_bf16(reinterpret_cast<const uint16_t*>(of_block));
        }
        for (int h = 0; h < M; h += H) {
            I sums[N][H];
            for (int m = 0; m < H; ++m)
                for (int n = 0; n < N; ++n) sums[n][m] = start(offsets[h + m] + offsets[M + h + m]);
            for (int k = 0; k < GROUP; k += 4) {
                Bytes weights[N];
                read_weights(matrix, w + k * BLOCK, weights);
                add_products(weights, x + h * GROUP + k, sums);
            }
            add_scaled(sums, weight_scales, scales + h, h, total);
        }
        scales += M, offsets += 2 * M;
    }
}

template <int N, int M>
inline void multiply_q4(const Matrix& matrix, int block, const uint8_t* input, const float* scales,
                        const int32_t* offsets, F (&total)[N][M]) {
    constexpr int H = at_once(2 * N, M);
    const uint8_t* w = matrix.block(block);
    const int8_t* x = reinterpret_cast<const int8_t*>(input);
    const Table table = load_table(matrix.codes);
    F steps[N];
    for (int n = 0; n < N; ++n) steps[n] = from_bf16(reinterpret_cast<const uint16_t*>(matrix.block_scales(block + n)));
    for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK / 2, x += M * GROUP) {
        F low[N], high[N];
        for (int n = 0; n < N; ++n) {
            const uint8_t* in_steps = matrix.block_scales(block + n) + (1 + group) * Matrix::SCALE_BYTES;
            __builtin_prefetch(in_steps + SCALES_AHEAD);
            low[n] = steps[n] * from_int8(reinterpret_cast<const int8_t*>(in_steps));
            high[n] = steps[n] * from_int8(reinterpret_cast<const int8_t*>(in_steps) + BLOCK);
        }
        for (int h = 0; h < M; h += H) {
            I first[N][H], second[N][H];  // sums of the halves, whose codes are in the low and in the high nibbles
            for (int m = 0; m < H; ++m)
                for (int n = 0; n < N; ++n) first[n][m] = start(offsets[h + m]), second[n][m] = start(offsets[M + h + m]);
            for (int k = 0; k < GROUP / 2; k += 4) {
                Bytes weights[N], other[N];
                read_weights(matrix, w + k * BLOCK, weights, h == 0);
                for (int n = 0; n < N; ++n) {
                    const Nibbles both = look_up(table, weights[n]);
                    weights[n] = both.low, other[n] = both.high;
                }
                add_products(weights, x + h * GROUP + k, first);
                add_products(other, x + h * GROUP + GROUP / 2 + k, second);
            }
            add_scaled(first, low, scales + h, h, total);
            add_scaled(second, high, scales + h, h, total);
        }
        scales += M, offsets += 2 * M;
    }
}

template <int N, int M>
void multiply_tile(const Matrix& matrix, const Input& input, const Tile& tile, int block, const float* bias, bool add,
                   float* out, ptrdiff_t stride) {
    const size_t at = size_t(tile.first) * input.groups;
    const uint8_t* x = input.data + at * GROUP * bits_of(input.format) / 8;
    const float* scales = input.scales + at;
    const int32_t* offsets = input.offsets + 2 * at;
    F total[N][M];
    for (int n = 0; n < N; ++n)
        for (int m = 0; m < M; ++m) total[n][m] = bias ? load(bias + (block + n) * BLOCK) : set(0.0f);
    switch (matrix.format) {
        case Format::f32: multiply_f32(matrix, block, x, total); break;
        case Format::bf16: multiply_bf16(matrix, block, x, total); break;
        case Format::q8: multiply_q8(matrix, block, x, scales, offsets, total); break;
        case Format::q4: multiply_q4(matrix, block, x, scales, offsets, total); break;
    }
    for (int m = 0; m < M && m < tile.tokens; ++m)
        for (int n = 0; n < N; ++n) {
            float* to = out + (tile.first + m) * stride + (block + n) * BLOCK;
            store(to, add ? load(to) + total[n][m] : total[n][m]);
        }
}

/// All blocks of a run times a tile of M tokens, BLOCKS at a time where several tokens share the readings of an input.
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
