// Matrix times rows. One kernel serves decoding and prefill: it reads a block of 16 rows once for a tile of tokens, so
// with one token it is a reading of the weights and with twelve it is bound by the multipliers. What is computed for a
// token does not depend on the tile it is in. Included once per instruction set.

/// How far ahead of their use weights are asked for. The processor's own prefetcher stops at the end of a page.
constexpr int AHEAD = 4096;

template <int M>
inline void multiply_f32(const Matrix& matrix, int block, const uint8_t* input, F (&total)[M]) {
    const float* w = reinterpret_cast<const float*>(matrix.block(block));
    const float* x = reinterpret_cast<const float*>(input);
    for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK, x += M * GROUP)
        for (int k = 0; k < GROUP; ++k) {
            const F weights = load(w + k * BLOCK);
            for (int m = 0; m < M; ++m) total[m] = total[m] + weights * set(x[m * GROUP + k]);
        }
}

template <int M>
inline void multiply_bf16(const Matrix& matrix, int block, const uint8_t* input, F (&total)[M]) {
    const uint16_t* w = reinterpret_cast<const uint16_t*>(matrix.block(block));
    const uint16_t* x = reinterpret_cast<const uint16_t*>(input);
    for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK, x += M * GROUP)
        for (int k = 0; k < GROUP; k += 2) {
            __builtin_prefetch(reinterpret_cast<const uint8_t*>(w + k * BLOCK) + AHEAD);
            for (int m = 0; m < M; ++m) total[m] = dot_bf16(total[m], w + k * BLOCK, x + m * GROUP + k);
        }
}

template <int M, int PARTS>
inline void multiply_q8(const Matrix& matrix, int block, const uint8_t* input, const float* scales,
                        const int32_t* offsets, F (&total)[M]) {
    const uint8_t* w = matrix.block(block);
    const uint16_t* s = reinterpret_cast<const uint16_t*>(matrix.block_scales(block));
    const int8_t* x = reinterpret_cast<const int8_t*>(input);
    for (int group = 0; group < matrix.groups(); ++group) {
        const F scale = from_bf16(s);
        for (int from = 0; from < GROUP; from += GROUP / PARTS, scales += M, offsets += M) {
            I part[M];
            for (int m = 0; m < M; ++m) part[m] = start(offsets[m]);
            for (int k = from; k < from + GROUP / PARTS; k += 4) {
                __builtin_prefetch(w + k * BLOCK + AHEAD);
                const Bytes codes = load_bytes(w + k * BLOCK);
                for (int m = 0; m < M; ++m) part[m] = dot(part[m], codes, x + m * GROUP + k);
            }
            for (int m = 0; m < M; ++m) total[m] = total[m] + to_float(part[m]) * (scale * set(scales[m]));
        }
        w += GROUP * BLOCK, s += BLOCK, x += M * GROUP;
    }
}

/// One half of a group of q4, the codes in the low or in the high nibbles. Halves come one after the other: there are no
/// registers for the sums of both for twelve tokens, and the second reading is of the nearest cache.
template <int M, bool HIGH>
inline void multiply_half(const uint8_t* w, const Table& table, const int8_t* x, const float* scales,
                          const int32_t* offsets, F scale, F (&total)[M]) {
    I part[M];
    for (int m = 0; m < M; ++m) part[m] = start(offsets[m]);
    for (int k = 0; k < GROUP / 2; k += 4) {
        if (!HIGH) __builtin_prefetch(w + k * BLOCK + AHEAD);
        const Nibbles codes = look_up(table, load_bytes(w + k * BLOCK));
        for (int m = 0; m < M; ++m) part[m] = dot(part[m], HIGH ? codes.high : codes.low, x + m * GROUP + k);
    }
    for (int m = 0; m < M; ++m) total[m] = total[m] + to_float(part[m]) * (scale * set(scales[m]));
}

template <int M>
inline void multiply_q4(const Matrix& matrix, int block, const uint8_t* input, const float* scales,
                        const int32_t* offsets, F (&total)[M]) {
    const uint8_t* w = matrix.block(block);
    const uint8_t* s = matrix.block_scales(block);
    const int8_t* x = reinterpret_cast<const int8_t*>(input);
    const Table table = load_table(matrix.codes);
    const F step = from_bf16(reinterpret_cast<const uint16_t*>(s));
    for (int group = 0; group < matrix.groups(); ++group) {
        s += Matrix::SCALE_BYTES;
        const F low = step * from_int8(reinterpret_cast<const int8_t*>(s));
        const F high = step * from_int8(reinterpret_cast<const int8_t*>(s) + BLOCK);
        multiply_half<M, false>(w, table, x, scales, offsets, low, total);
        multiply_half<M, true>(w, table, x + GROUP / 2, scales + M, offsets + M, high, total);
        w += GROUP * BLOCK / 2, x += M * GROUP, scales += HALVES * M, offsets += HALVES * M;
    }
}

template <int M>
void multiply_tile(const Matrix& matrix, const Input& input, const Tile& tile, int block, const float* bias, bool add,
                   float* out, ptrdiff_t stride) {
    const size_t at = size_t(tile.first) * input.groups;
    const uint8_t* x = input.data + at * GROUP * bits_of(input.format) / 8;
    const float* scales = input.scales + at * input.parts;
    const int32_t* offsets = input.offsets + at * input.parts;
    F total[M];
    for (int m = 0; m < M; ++m) total[m] = bias ? load(bias + block * BLOCK) : set(0.0f);
    switch (matrix.format) {
        case Format::f32: multiply_f32<M>(matrix, block, x, total); break;
        case Format::bf16: multiply_bf16<M>(matrix, block, x, total); break;
        case Format::q8:
            if (input.parts == HALVES)
                multiply_q8<M, HALVES>(matrix, block, x, scales, offsets, total);
            else
                multiply_q8<M, QUARTERS>(matrix, block, x, scales, offsets, total);
            break;
        case Format::q4: multiply_q4<M>(matrix, block, x, scales, offsets, total); break;
    }
    for (int m = 0; m < M && m < tile.tokens; ++m) {
        float* to = out + (tile.first + m) * stride + block * BLOCK;
        store(to, add ? load(to) + total[m] : total[m]);
    }
}

void matmul(const Matrix& matrix, const Input& input, int first, int last, const float* bias, bool add, float* out,
            ptrdiff_t stride) {
    for (int index = 0; index * TILE < input.tokens; ++index) {
        const Tile tile(input, index);
        for (int block = first; block < last; ++block) {
            switch (tile.size) {
                case 1: multiply_tile<1>(matrix, input, tile, block, bias, add, out, stride); break;
                case 2: multiply_tile<2>(matrix, input, tile, block, bias, add, out, stride); break;
                case 4:
                    if constexpr (TILE >= 4) multiply_tile<4>(matrix, input, tile, block, bias, add, out, stride);
                    break;
                case 8:
                    if constexpr (TILE >= 8) multiply_tile<8>(matrix, input, tile, block, bias, add, out, stride);
                    break;
                case 12:
                    if constexpr (TILE >= 12) multiply_tile<12>(matrix, input, tile, block, bias, add, out, stride);
                    break;
            }
        }
    }
}
